"""Commands for those who run the mirror as a service or in a container."""
