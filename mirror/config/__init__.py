"""The configuration: schema of options, and their loading from flags, environment, file and defaults."""
