"""Helpers that know nothing of registries."""
