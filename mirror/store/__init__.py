"""The store on this machine's disk: knows digests and repositories, not HTTP."""
