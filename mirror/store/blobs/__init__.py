"""Verified blobs on the disk, and the quota they keep to."""
