"""The operators' use cases: what is cached by image, removal, garbage collection, disk usage."""
