"""Fills that are running or were interrupted: partials, growing files, leases."""
