"""Helpers that know nothing about registries."""
