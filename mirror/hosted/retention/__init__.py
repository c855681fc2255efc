"""Retention of tags in hosted repositories: which ones stay, and the removal of the others."""
