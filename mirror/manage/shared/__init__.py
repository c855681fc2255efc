"""Upkeep of the shared tier, for commands."""
