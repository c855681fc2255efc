"""Configuration of clients: what to write so that a client uses a mirror, and the writing of it."""
