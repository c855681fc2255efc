"""The server: listeners, connections, and the end of both."""
