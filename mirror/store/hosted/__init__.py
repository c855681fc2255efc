"""Hosted repositories on the disk: pushed manifests, tags, links, referrers, and their retained blobs."""
