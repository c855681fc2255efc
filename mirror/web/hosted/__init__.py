"""Pushes over HTTP: uploads, mounts, manifests and deletions of hosted repositories."""
