"""Verified blobs on the disk, their quota, and their checks."""
