"""The edge: HTTP requests in, OCI answers out."""
