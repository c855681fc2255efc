"""The `serve` command: a parent that holds the sockets, and its workers."""
