"""Transfers: flights, fills, downloads, the planner, and other processes' fills."""
