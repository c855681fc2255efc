"""The `serve` command: one process, or several and their supervisor."""
