"""Rights: whether an account, or anybody, may read a repository, by the upstream's own word."""
