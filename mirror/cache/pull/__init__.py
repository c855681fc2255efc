"""Whole images: what a pull consists of, and pulls without a client."""
