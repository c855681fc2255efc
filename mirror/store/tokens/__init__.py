"""Tokens of clients: their file, and when each was used last."""
