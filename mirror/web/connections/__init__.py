"""Requests and answers of a connection: their targets, and what long answers may take together."""
