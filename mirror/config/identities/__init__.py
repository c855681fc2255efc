"""The options of identities that others vouch for."""
