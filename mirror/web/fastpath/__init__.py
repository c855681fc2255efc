"""Responses on the fast path: what is known well enough is sent without parsing the request."""
