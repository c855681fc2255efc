"""Access control of requests: its decisions, and what lists show."""
