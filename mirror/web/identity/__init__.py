"""Identification of clients: from the credentials of a request to the principals that the rules know."""
