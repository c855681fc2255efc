"""Secrets of this mirror in the cache folder."""
