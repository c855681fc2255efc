"""Images copied from one place to another: a folder, a file, a daemon, a registry, a hosted name."""
