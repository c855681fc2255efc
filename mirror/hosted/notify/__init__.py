"""Notifications of what happens in hosted repositories: queued on the disk, signed, sent in order."""
