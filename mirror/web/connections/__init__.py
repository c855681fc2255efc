"""Requests as they come over a connection: their targets."""
