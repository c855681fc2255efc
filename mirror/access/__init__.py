"""Access: who may do what, as pure decisions over rules."""
