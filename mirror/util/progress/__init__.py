"""Progress of long operations: bytes and items, per image and in all, with rate and time left; pure."""
