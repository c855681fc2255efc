"""Fills in progress: the partial file, its chunk map, and those who follow it."""
