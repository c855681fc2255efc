"""Limits of single repositories: the largest blob, and the share of the cache."""
