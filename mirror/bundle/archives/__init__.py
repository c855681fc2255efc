"""Readers of archives, ours and those of other programs: content is kept only if its digest proves it."""
