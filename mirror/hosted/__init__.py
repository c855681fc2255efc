"""Registries of the operator's own beside the mirror: what clients push is checked, kept and served here."""
