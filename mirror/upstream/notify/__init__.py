"""Requests that carry notifications."""
