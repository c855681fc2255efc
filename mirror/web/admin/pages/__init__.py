"""Pages for people, rendered on the server from the answers of the API."""
