"""Figures of a mirror over time."""
