"""Commands about the identities of clients."""
