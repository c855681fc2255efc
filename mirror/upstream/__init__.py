"""What other registries have; knows HTTP, not the disk."""
