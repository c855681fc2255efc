"""What is pinned, and what a pin keeps."""
