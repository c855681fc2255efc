"""Origins of content: an upstream that is mirrored, or this machine, to which content was pushed."""
