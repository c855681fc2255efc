"""One endpoint of an upstream over HTTP, in the terms of the distribution specification.

All methods raise UpstreamError and nothing else. Temporary failures have been retried by then, except in the
body of a blob: the caller decides how to resume that.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from mirror.config.endpoints import UpstreamSettings
from mirror.metrics.metrics import Metrics
from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import ACCEPT, MAX_MANIFEST_BYTES, OCI_INDEX, ManifestInvalid
from mirror.oci.ranges import Span
from mirror.oci.reference import Tag
from mirror.oci.referrers import array_of, texts_of_index
from mirror.upstream.accounts import Account, Accounts
from mirror.upstream.body import (
    BlobBody,
    blob_body,
    content_encoding,
    content_length,
    labelled,
)
from mirror.upstream.errors import Failure, HeadRefused, UpstreamError, WrongBytes
from mirror.upstream.guests.guest_accounts import GuestAccounts
from mirror.upstream.guests.guest_login import GuestLogin
from mirror.upstream.http.encodings import as_sent_or_decoded, document
from mirror.upstream.http.range_support import RangeSupport
from mirror.upstream.http.request import OutgoingRequest
from mirror.upstream.http.transport import Response, Transport
from mirror.upstream.http_client import DirectLocation, HTTPClient
from mirror.upstream.media_types import is_generic, is_page, manifest_type, media_type
from mirror.upstream.pagination import next_query
from mirror.upstream.retry import Retrier, RetryPolicy
from mirror.upstream.rights.grant import Grant, ask_for_grant
from mirror.util.tasks import off_loop

# Docker Hub lists all tags of a repository at once if no `n` is given: tens of thousands in places.
MAX_TAGS_BYTES = 8 * 1024 * 1024
MAX_REFERRERS_BYTES = 8 * 1024 * 1024
MAX_REFERRERS_PAGES = 64
# Upper bound that stands for a range without end.
_END = 2**63 - 1
# A query goes into the request line unchanged.
_QUERY = re.compile(r"[!-~]*")


class ManifestBody(Struct, frozen=True):
    """A manifest as sent. `digest` is computed from `data`; no header counts."""

    data: bytes
    media_type: str
    digest: Digest


class RemoteManifest(Struct, frozen=True):
    """Answer to a HEAD. `digest` is as the upstream says, unproven; None if its answer has none.

    `body` is the manifest if only a GET told: then everything is proven.
    """

    digest: Digest | None
    media_type: str
    size: int | None
    body: ManifestBody | None = None


class TagsPage(Struct, frozen=True):
    """One page of a list as sent, and the raw query of the next page."""

    data: bytes
    next_query: str | None


class RegistryClient:
    """Client of one endpoint. Repository paths are the upstream's own: `library/alpine`, not `alpine`."""

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
        self._has_certificate = settings.client_cert is not None
        self._transport = Transport(settings, metrics, offline=offline)
        self.accounts = Accounts(settings, self._transport, clock)
        self.guests = GuestAccounts(settings, self._transport, clock)
        self._client = HTTPClient(self._transport, self.accounts, self.guests, clock)
        self._retry = Retrier(RetryPolicy(attempts=settings.attempts), clock, sleep)
        # Blobs leave some connections free, so that a tag can be revalidated while layers are fetched.
        self.max_connections = settings.max_connections
        self.max_blob_connections = max(1, settings.max_connections * 7 // 8)
        self._heads = RangeSupport(clock)

    def __repr__(self) -> str:
        return f"RegistryClient({self.name!r})"

    async def head_manifest(
        self, path: str, reference: Tag | Digest, also: tuple[str, ...] = ()
    ) -> RemoteManifest:
        """Return type, size and digest of a manifest, without its body where the upstream supports that.

        `also`: media types to ask for besides those that are always asked for.
        """
        info = await self._retry(partial(self._head_manifest, path, reference, also))
        if info is not None:
            return info
        body = await self.get_manifest(path, reference, also)
        return RemoteManifest(body.digest, body.media_type, len(body.data), body)

    async def get_manifest(
        self, path: str, reference: Tag | Digest, also: tuple[str, ...] = ()
    ) -> ManifestBody:
        """Return a manifest; raise INVALID if it is too large, no manifest, or does not match the digest."""
        return await self._retry(partial(self._get_manifest, path, reference, also))

    async def head_blob(self, path: str, digest: Digest, expected: int | None = None) -> int | None:
        """Return the size of a blob, without download; None if the upstream does not tell it.

        `expected`: the size that something else tells. A HEAD is believed if it agrees; if it fails, tells no
        size, or another one, a GET is asked.
        """
        told, ranged = None, True
        try:
            if self._heads.available:
                told = await self._retry(partial(self._head_blob, path, digest))
            if told and expected in (None, told):
                return told
        except HeadRefused as error:
            ranged = not error.outage  # in an outage, two ways to ask by GET cost twice as much
        likely = [each for each in (told, expected) if each]
        size = await self._size_by_get(path, digest, likely if ranged else None)
        if told and size is not None and told != size:
            self.doubt_heads()
        return (told or None) if size is None else size  # where a GET does not tell, a HEAD is all there is

    def doubt_heads(self) -> None:
        """Ask by GET for a while how large blobs are: a HEAD has told a wrong length."""
        self._heads.refuse()

    async def _size_by_get(self, path: str, digest: Digest, likely: Collection[int] | None) -> int | None:
        """Ask for one byte; where ranges fail, the head of a plain GET tells as much.

        `likely`: sizes that something else tells; None for a plain GET at once. A wrong answer to a range has
        a wrong total, so where there are such sizes a total counts only if it is one of them.
        """
        try:
            if likely is not None:
                async with self.open_blob(path, digest, 0, 1) as body:
                    self._refuse_page(path, digest, page=body.page)
                    if body.total is not None and (not likely or body.total in likely):
                        return body.total
        except UpstreamError as error:
            if error.final:
                raise
        async with self.open_blob(path, digest) as body:
            self._refuse_page(path, digest, page=body.page)
            return body.total

    def _refuse_page(self, path: str, digest: Digest, *, page: bool) -> None:
        """Raise INVALID for a web page: a login form does not know what the repository has."""
        if page:
            raise self._invalid(f"{path}: a web page in place of {digest}")

    @contextlib.asynccontextmanager
    async def open_blob(
        self,
        path: str,
        digest: Digest,
        start: int = 0,
        stop: int | None = None,
        *,
        location: DirectLocation | None = None,
    ) -> AsyncIterator[BlobBody]:
        """Yield the bytes of a blob from `start` to `stop` (exclusive), or others: see `BlobBody`.

        The caller keeps `location` for all ranges of one blob. Leaving the context before the end of the body
        closes the connection.
        """
        asked = Span(start, _END if stop is None else stop) if start or stop is not None else None
        headers = _range(start, stop) if asked else {}
        request = OutgoingRequest("GET", f"{path}/blobs/{digest}", path, headers, proven=True)
        async with contextlib.AsyncExitStack() as stack:
            client = self._client
            response = await self._retry(lambda: stack.enter_async_context(client.open(request, location)))
            yield blob_body(self.name, response, asked, client.content(response))

    async def get_blob(self, path: str, digest: Digest, limit: int) -> bytes:
        """Return a small blob; raise INVALID if it exceeds `limit` bytes or does not match the digest."""
        return await self._retry(partial(self._get_blob, path, digest, limit))

    async def tags(self, path: str, query: str) -> TagsPage:
        """Return one page of the tag list; `query` is passed on unchanged."""
        return await self._retry(partial(self._tags, path, query))

    async def referrers(self, path: str, digest: Digest) -> str:
        """Return all referrers of `digest` as a list; raise NOT_FOUND if the upstream lacks the API."""
        texts: list[str] = []
        seen: set[str] = set()
        size = 0
        query: str | None = ""
        while query is not None:
            if query in seen or len(seen) == MAX_REFERRERS_PAGES or size > MAX_REFERRERS_BYTES:
                raise self._invalid(f"the list of referrers of {digest} does not end")
            seen.add(query)
            page, found = await self._retry(partial(self._referrers, path, digest, query))
            texts += found
            size, query = size + len(page.data), page.next_query
        return array_of(texts)

    async def grant(self, path: str, reference: str | None, credentials: GuestLogin | None) -> Grant:
        """Return whether these credentials, None for nobody's, may read a repository (`ask_for_grant`).

        An upstream with a client certificate is not asked what nobody may read: TLS shows the certificate.
        """
        if credentials is None and self._has_certificate:
            return Grant.REFUSED
        account = self.accounts.anonymous if credentials is None else self.guests.account(credentials)
        return await ask_for_grant(self._client, account, path, reference)

    async def warm_up(self) -> None:
        """Prepare for the first request without dialling."""
        await self._transport.warm_up()

    async def try_account(self, account: Account, path: str) -> UpstreamError | None:
        """Let an account ask about a repository, which tells whether its password is accepted.

        Return the reason if it could not ask. What the answer says about the repository is dropped.
        """
        request = OutgoingRequest("HEAD", f"{path}/tags/list?n=1", path)
        answer = await self._client.try_account(account, request)
        if isinstance(answer, UpstreamError):
            return answer
        answer.close()
        return None

    async def close(self) -> None:
        """Close all connections; running transfers break."""
        await self.accounts.close()
        await self.guests.close()
        await self._transport.close()

    async def _head_manifest(
        self, path: str, reference: Tag | Digest, also: tuple[str, ...]
    ) -> RemoteManifest | None:
        """Return None if only a GET can tell."""
        request = OutgoingRequest("HEAD", f"{path}/manifests/{reference}", path, _accept(also))
        try:
            async with self._client.open(request) as response:
                kind = media_type(response.headers.get("Content-Type"))
                if is_generic(kind):
                    return None
                digest = _digest_header(response)
                if isinstance(reference, Digest):
                    if digest not in (None, reference):
                        return None
                    digest = reference
                # Some registries send 0 for "not known"; no manifest is empty.
                return RemoteManifest(digest, kind, content_length(self.name, response) or None)
        except HeadRefused:
            return None

    async def _get_manifest(self, path: str, reference: Tag | Digest, also: tuple[str, ...]) -> ManifestBody:
        request = OutgoingRequest("GET", f"{path}/manifests/{reference}", path, _accept(also))
        response, data = await self._client.fetch(request, MAX_MANIFEST_BYTES)
        kind, encoding = media_type(response.headers.get("Content-Type")), content_encoding(response)
        data = await off_loop(len(data), document, data, encoding, MAX_MANIFEST_BYTES)
        algorithm = reference.algorithm if isinstance(reference, Digest) else "sha256"
        digest = await off_loop(len(data), Digest.of, data, algorithm)
        if isinstance(reference, Digest) and digest != reference and not is_page(kind):
            message = f"{self.name}: {path}: asked for {reference}, sent {digest}{labelled(encoding)}"
            raise WrongBytes(Failure.INVALID, message)
        try:
            return ManifestBody(data, await off_loop(len(data), manifest_type, kind, data), digest)
        except ValueError as error:
            raise self._invalid(f"{path}: {error}") from None

    async def _head_blob(self, path: str, digest: Digest) -> int | None:
        async with self._client.open(OutgoingRequest("HEAD", f"{path}/blobs/{digest}", path)) as response:
            # A page's length, or a status that a HEAD has no use for, is nothing to go by.
            is_blob = response.status == 200 and not is_page(media_type(response.headers.get("Content-Type")))
            return content_length(self.name, response) if is_blob else None

    async def _get_blob(self, path: str, digest: Digest, limit: int) -> bytes:
        request = OutgoingRequest("GET", f"{path}/blobs/{digest}", path, proven=True)
        response, data = await self._client.fetch(request, limit)
        encoding = content_encoding(response)
        for each in as_sent_or_decoded(data, encoding, limit):
            if Digest.of(each, digest.algorithm) == digest:
                return each
        message = f"{self.name} sent bytes that are not {digest}{labelled(encoding)}"
        raise WrongBytes(Failure.INVALID, message)

    async def _tags(self, path: str, query: str) -> TagsPage:
        page = await self._page(OutgoingRequest("GET", f"{path}/tags/list", path), query, MAX_TAGS_BYTES)
        if not await off_loop(len(page.data), _is_tag_list, page.data):
            raise self._invalid(f"{path}: the answer is not a list of tags")
        return page

    async def _referrers(self, path: str, digest: Digest, query: str) -> tuple[TagsPage, list[str]]:
        request = OutgoingRequest(
            "GET", f"{path}/referrers/{digest}", path, {"Accept": OCI_INDEX}, follow_see_other=False
        )
        try:
            page = await self._page(request, query, MAX_REFERRERS_BYTES)
            return page, await off_loop(len(page.data), self._referring, page.data)
        except UpstreamError as error:
            # Registries without the API answer 404, 405, a redirect to a web page (ghcr.io), or a web page;
            # with the API but without that digest: 400 MANIFEST_INVALID (quay.io). In all these cases the
            # referrers may be listed under a tag, which is the specification's fallback.
            if error.failure is Failure.INVALID and not query:
                raise UpstreamError(Failure.NOT_FOUND, error.message, status=error.status) from None
            raise

    def _referring(self, data: bytes) -> list[str]:
        try:
            return texts_of_index(data)
        except ManifestInvalid as error:
            raise self._invalid(f"the answer to a request for referrers is no index: {error}") from None

    async def _page(self, request: OutgoingRequest, query: str, limit: int) -> TagsPage:
        if not _QUERY.fullmatch(query) or "#" in query:
            raise self._invalid("the query has characters that cannot be sent")
        page = replace(request, path=f"{request.path}?{query}" if query else request.path)
        # Lists of large repositories are too long every day; a manifest that is too long is soon mended.
        response, data = await self._client.fetch(page, limit, remember=True)
        page_data = await off_loop(len(data), document, data, content_encoding(response), limit)
        return TagsPage(page_data, next_query(response.headers.getall("Link", [])))

    def _invalid(self, what: str) -> UpstreamError:
        return UpstreamError(Failure.INVALID, f"{self.name}: {what}")


def _is_tag_list(data: bytes) -> bool:
    """Return whether a body is a list of tags. Of a very long one beginning and end are looked at."""
    try:
        document = json_text.parse(data)
    except json_text.TooManyValues:
        return b'"tags"' in data and json_text.may_be_object(data)
    except ValueError:
        return False
    return isinstance(document, dict) and isinstance(document.get("tags", ""), list | None)


def _accept(also: tuple[str, ...]) -> Mapping[str, str]:
    """Return one line with all types, as containerd sends it.

    Without one of them, registries based on Distribution answer 404 for a manifest of that type, and quay.io
    converts manifests to schema 1.
    """
    return {"Accept": ", ".join((*ACCEPT, *also))}


def _range(start: int, stop: int | None) -> Mapping[str, str]:
    return {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}


def _digest_header(response: Response) -> Digest | None:
    try:
        return Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except RegistryError:
        return None
