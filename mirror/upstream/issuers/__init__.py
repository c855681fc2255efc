"""Issuers of tokens: where their public keys come from, by the rules for requests to upstreams."""
