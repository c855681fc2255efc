"""Origins of values: the lines of a configuration file."""
