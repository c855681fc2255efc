"""Browsing the cache: search with pages, and one image in detail."""
