"""The commands about the configuration: check, show, and try the access rules."""
