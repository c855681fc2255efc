"""Upkeep of the object store by the mirrors: which blobs were used when, which are pinned, which go."""
