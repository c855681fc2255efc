"""Commands about the shared tier."""
