"""Acceptance of connections that have something to pass before HTTP: a PROXY header, or TLS."""
