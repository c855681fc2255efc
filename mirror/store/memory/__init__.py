"""A store in memory: the twin of the one on a cache folder, for one process."""
