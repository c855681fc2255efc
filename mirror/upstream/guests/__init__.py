"""Guests: clients that are asked for with their own credentials at an upstream."""
