"""Responses for the set-up and the examination of clients."""
