"""Requests for the public keys of an issuer: discovery, then the key set.

An issuer is asked as an upstream is: no redirect or URL of its documents leads from a public issuer to a
private address, nor from https to http, nor round in a circle; nothing is sent but the request.
"""

import asyncio
from typing import Any

from yarl import URL

from mirror.config.endpoints import UpstreamSettings
from mirror.config.identities.issuers import IssuerSettings
from mirror.metrics.metrics import Metrics
from mirror.oci import json_text
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.follow import get_following
from mirror.upstream.http.redirect import RedirectRules, parse_url, refusal
from mirror.upstream.http.transport import Transport

DISCOVERY = "/.well-known/openid-configuration"

# Longest documents that are read, in bytes, and the values of the first one. `mirror.access.jwt.keys` has the
# bounds of a key set.
DISCOVERY_BYTES, DISCOVERY_VALUES = 64 * 1024, 2_000
KEYS_BYTES = 512 * 1024

# Time for one document, redirects included, in seconds: clients wait for it.
SECONDS = 10.0


class KeyRequests:
    """Requests to one issuer, over connections of their own."""

    def __init__(self, settings: IssuerSettings, metrics: Metrics, *, offline: bool = False) -> None:
        self._settings = settings
        endpoint = UpstreamSettings(
            name=f"issuer {settings.name}",
            url=settings.issuer,
            ca_file=settings.ca_file,
            max_connections=2,
            connect_timeout=SECONDS / 2,
            read_timeout=SECONDS / 2,
        )
        self._transport = Transport(endpoint, metrics, offline=offline)

    async def fetch(self) -> bytes:
        """Return the issuer's key set, unparsed. Raises UpstreamError."""
        where = self._settings.jwks_url
        url = await self._discover() if where is None else URL(where, encoded=True)
        return await self._get(url, KEYS_BYTES)

    async def close(self) -> None:
        """End the connections."""
        await self._transport.close()

    async def _discover(self) -> URL:
        """Return the URL of the key set, as the issuer's configuration names it."""
        document = await self._get(
            URL(self._settings.issuer.rstrip("/") + DISCOVERY, encoded=True), DISCOVERY_BYTES
        )
        found = self._parsed(document)
        if found.get("issuer") != self._settings.issuer:
            raise self._wrong(
                f"its configuration is that of {str(found.get('issuer'))[:200]!r}: correct `issuer`"
            )
        try:
            url = parse_url(str(found.get("jwks_uri") or ""))
        except ValueError:
            raise self._wrong("its configuration names no URL of its keys") from None
        secure = self._transport.url.scheme == "https"
        if url.raw_user is not None or refusal(self._rules(), url, secure=secure):
            raise self._wrong("its configuration names a URL of its keys that may not be asked: set jwks_url")
        return url

    def _parsed(self, document: bytes) -> dict[str, Any]:
        try:
            found = json_text.parse(document, DISCOVERY_VALUES)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._wrong("its configuration is no JSON object")
        return found

    async def _get(self, url: URL, most: int) -> bytes:
        try:
            async with asyncio.timeout(SECONDS):
                return await self._read(url, most)
        except TimeoutError:
            raise UpstreamError(Failure.TIMEOUT, f"{self._transport.name}: no answer in time") from None

    async def _read(self, url: URL, most: int) -> bytes:
        headers = {"Accept": "application/json"}
        response, _ = await get_following(self._transport, self._rules(), url, headers, None, _is_trusted)
        try:
            if response.status != 200:
                raise self._wrong(f"{url.host} answered {response.status} for {url.raw_path[:100]}")
            return await self._transport.read(response, most)
        finally:
            response.close()

    def _rules(self) -> RedirectRules:
        return RedirectRules(self._transport.url, private=self._transport.private)

    def _wrong(self, message: str) -> UpstreamError:
        return UpstreamError(Failure.INVALID, f"{self._transport.name}: {message}")


def _is_trusted(url: URL) -> bool:
    """Return whether a credential may be sent: there is none."""
    return False
