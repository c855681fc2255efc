"""Clients of upstream registries: HTTP, authentication, sources; no knowledge of the disk."""
