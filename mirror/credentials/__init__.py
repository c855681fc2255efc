"""Credentials of accounts at upstreams: where they come from, and how they are kept fresh.

No value of this package shows a secret in its representation, and no error repeats one: what a program has
printed is never quoted.
"""
