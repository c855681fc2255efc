"""Clients of upstream registries: HTTP, authentication, sources; no knowledge of the disk."""

from mirror.util.tls import without_certificates

with without_certificates():
    import aiohttp  # noqa: F401  # here, before any module of this package imports aiohttp
