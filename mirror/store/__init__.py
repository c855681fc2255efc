"""What is on this disk; knows digests, not HTTP."""
