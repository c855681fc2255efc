"""Fills with a shared tier: the object store as a source, leases among mirrors, and writing behind."""
