"""Registries that content is pushed to."""
