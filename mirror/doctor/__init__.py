"""Checks of a mirror, its machine, its upstreams and its clients; each finding has what mends it."""
