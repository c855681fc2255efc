"""The parts of a cache folder, as blocking calls."""
