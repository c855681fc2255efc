"""Traces of requests, downloads and requests to upstreams, where they are configured."""
