"""One configured upstream over HTTP, in the words of the distribution specification.

Everything here raises UpstreamError and nothing else. What is temporary has been tried several times by
then, except for the body of a blob: how to go on in the middle of that is for the caller to decide.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import ACCEPT, MAX_MANIFEST_BYTES, OCI_INDEX, ManifestInvalid, referrers_of
from mirror.oci.ranges import Span
from mirror.oci.reference import Tag
from mirror.upstream.accounts import Accounts
from mirror.upstream.body import BlobBody, ReadOptions, blob_body
from mirror.upstream.errors import Failure, UpstreamError, WrongBytes
from mirror.upstream.http.transport import Response, Transport
from mirror.upstream.http_client import DirectLocation, HeadRefused, HTTPClient, OutgoingRequest
from mirror.upstream.media_types import is_page, manifest_type, media_type, says_nothing
from mirror.upstream.pagination import next_query
from mirror.upstream.retry import Retrier, RetryPolicy

# One line with all types, as containerd sends it: with less, Distribution-based registries answer 404 for
# what they have, and quay.io converts to schema 1 (CLIENTS.md 1.1).
_ACCEPT = {"Accept": ", ".join(ACCEPT)}
# Docker Hub lists all tags of a repository at once when no `n` is given: tens of thousands in places.
MAX_TAGS_BYTES = 8 * 1024 * 1024
MAX_REFERRERS_BYTES = 8 * 1024 * 1024
MAX_REFERRERS_PAGES = 64
# A range without end, as one bound.
_END = 2**63 - 1
# A query goes into the request line as it is.
_QUERY = re.compile(r"[!-~]*")


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """What a HEAD told. `digest` is the upstream's word; None where it said nothing."""

    digest: Digest | None
    media_type: str
    size: int | None


@dataclass(frozen=True, slots=True)
class ManifestBody:
    """A manifest as sent. `digest` is computed from `data`, whatever any header said."""

    data: bytes
    media_type: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class TagsPage:
    """A tag list as sent, and the raw query of the page that follows."""

    data: bytes
    next_query: str | None


class RegistryClient:
    """One upstream. Repository paths are the upstream's own: `library/alpine`, not `alpine`."""

    def __init__(
        self,
        settings: UpstreamSettings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        offline: bool = False,
    ) -> None:
        self.name = settings.name
        self._transport = Transport(settings, metrics, offline=offline)
        self.accounts = Accounts(settings, self._transport, clock)
        self._client = HTTPClient(self._transport, self.accounts)
        self._retry = Retrier(RetryPolicy(attempts=settings.attempts), clock, sleep)
        # Long transfers leave some connections free, so that a tag can be confirmed while layers are fetched.
        self.max_blob_connections = max(1, settings.max_connections * 7 // 8)

    def __repr__(self) -> str:
        return f"Registry({self.name!r})"

    async def head_manifest(self, path: str, reference: Tag | Digest) -> RemoteManifest:
        """What a reference is, without its body where the upstream can do that."""
        info = await self._retry(partial(self._head_manifest, path, reference))
        if info is not None:
            return info
        body = await self.get_manifest(path, reference)
        return RemoteManifest(body.digest, body.media_type, len(body.data))

    async def get_manifest(self, path: str, reference: Tag | Digest) -> ManifestBody:
        """The manifest; INVALID when it is too large, is none, or is not what the digest names."""
        return await self._retry(partial(self._get_manifest, path, reference))

    async def head_blob(self, path: str, digest: Digest) -> int | None:
        """The size of a blob the repository has; None when the upstream does not tell. Never downloads."""
        with contextlib.suppress(HeadRefused):
            return await self._retry(partial(self._head_blob, path, digest))
        # One byte proves as much.
        try:
            async with self.open_blob(path, digest, 0, 1) as body:
                return body.total
        except UpstreamError as error:
            if error.status == 416:  # what has no first byte is empty
                return 0
            raise

    @contextlib.asynccontextmanager
    async def open_blob(
        self,
        path: str,
        digest: Digest,
        start: int = 0,
        stop: int | None = None,
        *,
        shortcut: DirectLocation | None = None,
    ) -> AsyncIterator[BlobBody]:
        """The bytes of a blob from `start` to `stop` (exclusive). See `BlobBody` for what may come instead.

        `shortcut` is kept by the caller for all ranges of one blob.
        Leaving the context before the body's end closes the connection.
        """
        asked = Span(start, _END if stop is None else stop) if start or stop is not None else None
        ask = OutgoingRequest("GET", f"{path}/blobs/{digest}", path, _range(start, stop) if asked else {})
        async with contextlib.AsyncExitStack() as stack:
            response = await self._retry(lambda: stack.enter_async_context(self._client.open(ask, shortcut)))
            client = self._client
            reading = ReadOptions(partial(client.chunks, response), partial(client.direct_reader, response))
            yield blob_body(self.name, response, asked, reading)

    async def get_blob(self, path: str, digest: Digest, limit: int) -> bytes:
        """A small blob, whole; INVALID when it is larger than `limit` or is not what the digest names."""
        return await self._retry(partial(self._get_blob, path, digest, limit))

    async def tags(self, path: str, query: str) -> TagsPage:
        """One page of the tag list; `query` is passed on as it is."""
        return await self._retry(partial(self._tags, path, query))

    async def referrers(self, path: str, digest: Digest) -> list[dict[str, Any]]:
        """Descriptors of all that refers to `digest`; NOT_FOUND when the upstream lacks the API."""
        manifests: list[dict[str, Any]] = []
        seen: set[str] = set()
        size = 0
        query: str | None = ""
        while query is not None:
            if query in seen or len(seen) == MAX_REFERRERS_PAGES or size > MAX_REFERRERS_BYTES:
                raise self._invalid(f"the list of what refers to {digest} does not end")
            seen.add(query)
            page = await self._retry(partial(self._referrers, path, digest, query))
            manifests += self._referring(page.data)
            size, query = size + len(page.data), page.next_query
        return manifests

    async def warm_up(self) -> None:
        """Be ready for the first question. Nothing is dialled."""
        await self._transport.warm_up()

    async def close(self) -> None:
        """Close all connections; running transfers break."""
        await self._transport.close()

    async def _head_manifest(self, path: str, reference: Tag | Digest) -> RemoteManifest | None:
        """None when only a GET can tell."""
        ask = OutgoingRequest("HEAD", f"{path}/manifests/{reference}", path, _ACCEPT)
        try:
            async with self._client.open(ask) as response:
                kind = media_type(response.headers.get("Content-Type"))
                if says_nothing(kind):
                    return None
                digest = reference if isinstance(reference, Digest) else _digest_header(response)
                # 0 is what some send for "not known"; no manifest is empty.
                return RemoteManifest(digest, kind, response.content_length or None)
        except HeadRefused:
            return None

    async def _get_manifest(self, path: str, reference: Tag | Digest) -> ManifestBody:
        async with self._client.open(
            OutgoingRequest("GET", f"{path}/manifests/{reference}", path, _ACCEPT)
        ) as response:
            data = await self._client.read(response, MAX_MANIFEST_BYTES)
            kind = media_type(response.headers.get("Content-Type"))
        algorithm = reference.algorithm if isinstance(reference, Digest) else "sha256"
        digest = Digest.of(data, algorithm)
        if isinstance(reference, Digest) and digest != reference and not is_page(kind):
            raise WrongBytes(Failure.INVALID, f"{self.name}: {path}: asked for {reference}, sent {digest}")
        try:
            return ManifestBody(data, manifest_type(kind, data), digest)
        except ValueError as error:
            raise self._invalid(f"{path}: {error}") from None

    async def _head_blob(self, path: str, digest: Digest) -> int | None:
        async with self._client.open(OutgoingRequest("HEAD", f"{path}/blobs/{digest}", path)) as response:
            if is_page(media_type(response.headers.get("Content-Type"))):
                # Whoever answers everything with a login form does not know what the repository has.
                raise self._invalid(f"{path}: a web page instead of {digest}")
            return response.content_length

    async def _get_blob(self, path: str, digest: Digest, limit: int) -> bytes:
        async with self._client.open(OutgoingRequest("GET", f"{path}/blobs/{digest}", path)) as response:
            data = await self._client.read(response, limit)
        if Digest.of(data, digest.algorithm) != digest:
            raise WrongBytes(Failure.INVALID, f"{self.name} sent bytes that are not {digest}")
        return data

    async def _tags(self, path: str, query: str) -> TagsPage:
        page = await self._page(OutgoingRequest("GET", f"{path}/tags/list", path), query, MAX_TAGS_BYTES)
        try:
            document = json.loads(page.data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or not isinstance(document.get("tags", ""), list | None):
            raise self._invalid(f"{path}: the tag list is none")
        return page

    async def _referrers(self, path: str, digest: Digest, query: str) -> TagsPage:
        ask = OutgoingRequest(
            "GET", f"{path}/referrers/{digest}", path, {"Accept": OCI_INDEX}, follow_see_other=False
        )
        try:
            page = await self._page(ask, query, MAX_REFERRERS_BYTES)
            self._referring(page.data)
        except UpstreamError as error:
            # Without the API: 404, 405, a redirect to a web page (ghcr.io), a web page. With it, but without
            # that digest: 400 MANIFEST_INVALID (quay.io). The tag schema may know more in all these cases.
            if error.failure is Failure.INVALID and not query:
                raise UpstreamError(Failure.NOT_FOUND, error.message, status=error.status) from None
            raise
        return page

    def _referring(self, data: bytes) -> list[dict[str, Any]]:
        try:
            return referrers_of(data)
        except ManifestInvalid as error:
            raise self._invalid(f"what answers for referrers is no index: {error}") from None

    async def _page(self, ask: OutgoingRequest, query: str, limit: int) -> TagsPage:
        if not _QUERY.fullmatch(query) or "#" in query:
            raise self._invalid("a query that cannot be sent")
        path = f"{ask.path}?{query}" if query else ask.path
        whole = OutgoingRequest(ask.method, path, ask.repository, ask.headers, ask.follow_see_other)
        async with self._client.open(whole) as response:
            data = await self._client.read(response, limit)
            return TagsPage(data, next_query(response.headers.getall("Link", [])))

    def _invalid(self, what: str) -> UpstreamError:
        return UpstreamError(Failure.INVALID, f"{self.name}: {what}")


def _range(start: int, stop: int | None) -> Mapping[str, str]:
    return {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}


def _digest_header(response: Response) -> Digest | None:
    try:
        return Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except RegistryError:
        return None
