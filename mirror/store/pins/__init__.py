"""Pins: their file, and the content that they keep."""
