"""Private content in front of the cache: who is let in to a repository that not anybody may read."""
