"""Backups: one archive of what a cache folder has and nothing can fetch again, and the way back."""
