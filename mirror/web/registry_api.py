"""The registry API: parse a request into a target, ask the cache, answer in HTTP."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from mirror.access.secret_path import without_secret
from mirror.cache.cache import Cache
from mirror.cache.readers import BlobContent, BlobRequest
from mirror.cache.referring.clients import Requester
from mirror.cache.results import FOREVER, Outcome, ReferrersAnswer, Staleness
from mirror.cache.tag.expired import REVALIDATING
from mirror.config.schema import Config
from mirror.oci.accept import Accepted
from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.manifest import OCI_INDEX
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository, Tag, Target, TargetKind, is_hosted, namespace, parse_target
from mirror.oci.referrers import array_of, index_of
from mirror.store.errors import ShuttingDown, StoreError, reason_of
from mirror.upstream.errors import Failure, UpstreamError, WrongBytes, WrongSize
from mirror.upstream.guests.current import serving_nobody
from mirror.util.callbacks import zero
from mirror.util.time_limit import TimeLimit
from mirror.web import responses
from mirror.web.access_control import AccessControl
from mirror.web.client_errors import client_error, read_only
from mirror.web.connections.request_target import check_target, path_and_host
from mirror.web.request_log import RequestRecord

if TYPE_CHECKING:
    from mirror.web.hosted.push_api import PushApi
    from mirror.web.peers.redirects import StoreRedirects

T = TypeVar("T")

Handler = Callable[[RequestRecord, Target], Awaitable[web.StreamResponse]]

# Methods of requests that change nothing, and of those that change a hosted registry.
READING, WRITING = frozenset({"GET", "HEAD"}), frozenset({"POST", "PUT", "PATCH", "DELETE"})

# Page sizes of the catalog: the default for a request without `n`, and the maximum.
CATALOG_PAGE = 100
CATALOG_MAX = 10_000

# How often a blob is requested again that turns out to be of another size than was said of it.
SIZES = 2

# What the referrers API answers about a digest that has none.
NO_REFERRERS = index_of(array_of(()))


class RegistryApi:
    """The handlers of everything under /v2/ and /<prefix>/v2/."""

    def __init__(
        self, cache: Cache, config: Config, access: AccessControl, pushes: "PushApi | None" = None
    ) -> None:
        """`pushes`: of hosted registries, None where there is none."""
        self._cache = cache
        self._origin = cache.origin
        self._pushes = pushes
        self.redirects: StoreRedirects | None = None  # to the store that mirrors share
        self._access = access
        self._hosted = frozenset(each.name for each in config.hosted)
        self.push_epoch: Callable[[], int] = zero
        self._names = config.names()
        self._header_timeout = config.server.header_timeout
        self._when_unavailable = config.server.when_unavailable
        self._handlers: dict[TargetKind, Handler] = {
            TargetKind.BASE: self._base,
            TargetKind.MANIFEST: self._manifest,
            TargetKind.BLOB: self._blob,
            TargetKind.TAGS: self._tags,
            TargetKind.REFERRERS: self._referrers,
            TargetKind.CATALOG: self._catalog,
        }

    def parse(self, record: RequestRecord) -> Target:
        """Return what the request is for, noted in the record. Raises RegistryError for no request."""
        request = record.request
        if request.method not in READING and not self._is_push(record):
            raise read_only(request.method)
        path, host = path_and_host(request)
        check_target(request)
        api_path = without_secret(path, record.path_prefix)
        record.target = parse_target(self._names, api_path, self._ns(request), host)
        return record.target

    async def handle(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        """Return the response, sent already or ready to send. Raises RegistryError.

        Raises other errors only when cancelled, or when the client left.
        """
        if self._pushes is not None and self._pushes.takes(record, target):
            return await self._pushes.handle(record, target)
        try:
            if self._access.guards(target):
                with serving_nobody():
                    await self._within_header_timeout(target, self._access.admit(record, target))
                    return await self._handlers[target.kind](record, target)
            return await self._handlers[target.kind](record, target)
        except (UpstreamError, StoreError) as failure:
            raise client_error(failure, target, self._when_unavailable) from failure

    def _is_push(self, record: RequestRecord) -> bool:
        """Return whether a request wants to change a hosted registry."""
        if self._pushes is None or record.request.method not in WRITING:
            return False
        check_target(record.request)
        path, host = path_and_host(record.request)
        api_path = without_secret(path, record.path_prefix)
        return is_hosted(self._names, api_path, self._ns(record.request), host)

    def _ns(self, request: web.BaseRequest) -> str | None:
        """Return the registry that the client names, by the parameter or by the header."""
        given = [*request.query.getall("ns", []), *request.headers.getall(responses.NAMESPACE, [])]
        return namespace(self._names, given)

    async def _base(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        record.outcome, record.ttl = Outcome.HIT, FOREVER
        return responses.json_body(record, b"{}")

    async def _manifest(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        repository, reference = _repository_and_reference(target)
        accepted = Accepted.parse(record.request.headers.getall("Accept", []))
        if moves := isinstance(reference, Tag) and repository.upstream in self._hosted:
            record.push_epoch = self.push_epoch()  # before the look-up of the tag
        if record.request.method == "HEAD":
            head = self._origin(repository).head_manifest(repository, reference, accepted)
            info = await self._within_header_timeout(target, head)
            digest, media_type, size, data = info.digest, info.media_type, info.size, None
            record.outcome, record.ttl, staleness = info.outcome, info.ttl, info.staleness
        else:
            get = self._origin(repository).get_manifest(repository, reference, accepted, _requester(record))
            found = await self._within_header_timeout(target, get)
            if record.checks is not None:
                await record.checks.check_manifest(self._cache, repository, found)
            digest, media_type, size, data = found.digest, found.media_type, len(found.data), found.data
            record.outcome, record.ttl, staleness = found.outcome, found.ttl, found.staleness
        if moves:
            record.ttl = FOREVER
        record.digest = digest
        if record.age_matters:
            by_author = self._access.trusts_created(repository)
            birth = self._cache.images.birth(repository, digest, by_author=by_author)
            self._access.authorise_age(record, target, await self._within_header_timeout(target, birth))
        # What a tag is may depend on what the client takes; what a digest is does not.
        vary = {"Vary": f"Accept, {responses.NAMESPACE}"} if isinstance(reference, Tag) else {}
        extra = {**vary, **_stale_headers(record, staleness)}
        if responses.matches(record.request.headers.get("If-None-Match"), digest):
            return responses.not_modified(record, digest, extra)
        headers = {
            "Content-Type": responses.content_type(media_type),
            **responses.content_headers(digest),
            **extra,
        }
        if data is None:
            return responses.head(record, headers, size)
        return responses.buffered(record, 200, headers, data)

    async def _blob(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        repository, record.digest = _repository_and_digest(target)
        if record.checks is not None:
            check = record.checks.check_blob(self._cache, repository, record.digest)
            await self._within_header_timeout(target, check)
        if record.request.method == "HEAD":
            return await self._blob_head(record, target)
        away = self.redirects
        if away is not None and (sent := await away.answer(record, repository, record.digest)) is not None:
            return sent
        for _ in range(SIZES):
            # No byte has been sent: the next answer goes by what has been learnt about the size.
            with suppress(WrongSize):
                return await self._blob_body(record, target)
        return await self._blob_body(record, target)

    async def _blob_body(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        repository, digest = _repository_and_digest(target)
        if responses.reads_beginning(record.request.headers.get("Range")):
            self._cache.note_layer(repository, digest)
        limit = self._time_limit(repository)
        get = self._origin(repository).get_blob(repository, digest, limit, _blob_request(record))
        answer = await self._within_header_timeout(target, get, limit)
        record.outcome, record.content_ttl = answer.outcome, answer.ttl
        record.note = answer.note or record.note
        with closing(answer.content) as content:
            if content.data is not None:
                record.ttl = answer.ttl
            stale = _stale_headers(record, answer.staleness)
            return await self._blob_content(record, digest, content, limit.deadline, stale)

    async def _blob_head(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        repository, digest = _repository_and_digest(target)
        head = self._origin(repository).head_blob(repository, digest)
        info = await self._within_header_timeout(target, head)
        record.outcome, stale = info.outcome, _stale_headers(record, info.staleness)
        if responses.matches(record.request.headers.get("If-None-Match"), digest):
            return responses.not_modified(record, digest, stale)
        headers = {
            "Content-Type": responses.BLOB_TYPE,
            "Accept-Ranges": "bytes",
            **responses.content_headers(digest),
            **stale,
        }
        return responses.head(record, headers, info.size)

    async def _blob_content(
        self,
        record: RequestRecord,
        digest: Digest,
        content: BlobContent,
        deadline: float,
        stale: Mapping[str, str],
    ) -> web.StreamResponse:
        """Return the response with the content, or the parts of it that the client asks for."""
        if responses.matches(record.request.headers.get("If-None-Match"), digest):
            return responses.not_modified(record, digest, stale)
        if content.data is not None:
            return responses.small_blob(record, digest, content.data, stale)
        size = content.size
        spans = [] if size is None else responses.requested_spans(record.request, digest, size)
        await self._wait_first_readable(content, spans, deadline)
        return await _deliver(record, digest, content, spans, stale)

    async def _tags(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        repository = _repository(target)
        parameters = parse_qsl(record.request.rel_url.raw_query_string, keep_blank_values=True)
        entries = _entry_count(dict(parameters).get("n"))
        query = urlencode([(key, value) for key, value in parameters if key != "ns"])
        page = await self._within_header_timeout(target, self._origin(repository).tags(repository, query))
        record.outcome = page.outcome
        # An empty page is the last one, even where the upstream links to another.
        next_query = None if entries == 0 else page.next_query
        headers = {**_next_page(record.request, next_query), **_stale_headers(record, page.staleness)}
        data = await self._access.lists.tags(record, repository, page.data)
        return responses.json_body(record, data, headers)

    async def _referrers(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        repository, digest = _repository_and_digest(target)
        query = record.request.query
        artifact_types = {each for each in query.getall("artifactType", []) if each}
        listing = self._origin(repository).referrers(
            repository, digest, artifact_types, _requester(record), query.get("last", "")
        )
        try:
            found = await self._within_header_timeout(target, listing)
        except ShuttingDown:
            raise
        except (UpstreamError, StoreError) as error:
            # The specification forbids 404. Docker 29 fails its pull at any error, oras at a 404 after a 200.
            found = ReferrersAnswer(
                NO_REFERRERS, bool(artifact_types), Outcome.STALE, Staleness(None, str(error))
            )
        record.outcome = found.outcome
        headers = {
            "Content-Type": OCI_INDEX,
            **_next_page(record.request, found.next_query),
            **_stale_headers(record, found.staleness),
        }
        if found.filtered:
            headers["OCI-Filters-Applied"] = "artifactType"
        return responses.buffered(record, 200, headers, found.data)

    async def _catalog(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        query = record.request.query
        entries = _entry_count(query.get("n"))
        limit = CATALOG_PAGE if entries is None else min(entries, CATALOG_MAX)
        fetch = partial(self._cache.catalog, target.upstream)
        names, more = await self._access.lists.catalog(record, target, fetch, query.get("last", ""), limit)
        record.outcome = Outcome.HIT
        next_query = urlencode({"n": limit, "last": names[-1]}) if more and names else None
        body = json.dumps({"repositories": names}, separators=(",", ":")).encode()
        return responses.json_body(record, body, _next_page(record.request, next_query))

    async def _within_header_timeout(
        self, target: Target, answer: Awaitable[T], limit: TimeLimit | None = None
    ) -> T:
        """Await `answer`; past the limit raise UpstreamError: some clients wait forever, others 30 s."""
        repository = _repository(target)
        try:
            async with limit or self._time_limit(repository):
                return await answer
        except TimeoutError:
            self._cache.patience.report_timeout(repository, self._header_timeout)
            raise UpstreamError(Failure.TIMEOUT, "no answer from the upstream in time") from None

    def _time_limit(self, repository: Repository) -> TimeLimit:
        """Return the limit on an answer, shorter while an upstream is waited for that gave none last time.

        Not shorter for the disk.
        """
        early = self._cache.patience.limit(repository, self._header_timeout)
        return TimeLimit(
            self._header_timeout, (early, partial(self._cache.patience.report_timeout, repository, early))
        )

    async def _wait_first_readable(self, reader: BlobContent, spans: list[Span], deadline: float) -> None:
        """Wait for the first byte to send, so that a fill that fails at once gives an error status.

        A fill that is merely slow gives none: the head goes out in time, and the body as it arrives.
        """
        if reader.size == 0:
            return
        try:
            async with asyncio.timeout_at(deadline):
                await reader.wait_readable(spans[0].start if spans else 0)
        except ShuttingDown:
            raise
        except WrongBytes as error:
            if not error.retry_elsewhere:
                raise
        except (TimeoutError, StoreError):
            pass  # a failing disk is no failure yet: the missing bytes are passed through


async def _deliver(
    record: RequestRecord,
    digest: Digest,
    reader: BlobContent,
    spans: list[Span],
    stale: Mapping[str, str],
) -> web.StreamResponse:
    """Send the blob. From here on, only an early end can report an error."""
    try:
        return await responses.send_blob(record, digest, reader, spans, stale)
    except (UpstreamError, StoreError) as failure:
        record.outcome, record.note = Outcome.ERROR, f"cut short: {failure}"
    except (ConnectionError, RuntimeError) as left:  # RuntimeError: asyncio's for a closing transport
        record.note = f"client left: {reason_of(left)}"
    return responses.cut_short(record)


def _blob_request(record: RequestRecord) -> BlobRequest:
    """Return what a request tells about a retry: that is one without a range or condition."""
    headers = record.request.headers
    whole = headers.get("Range", "bytes=0-") == "bytes=0-" and "If-None-Match" not in headers
    ranges = None if whole or "If-Range" in headers else headers.get("Range")
    return BlobRequest(record.client, whole, ranges)


def _requester(record: RequestRecord) -> Requester:
    return Requester(record.request.remote or "", record.request.headers.get("User-Agent", ""))


def _repository(target: Target) -> Repository:
    if target.repository is None:
        raise AssertionError(f"{target.kind} without a repository")
    return target.repository


def _repository_and_reference(target: Target) -> tuple[Repository, Tag | Digest]:
    if target.reference is None:
        raise AssertionError(f"{target.kind} without a reference")
    return _repository(target), target.reference


def _repository_and_digest(target: Target) -> tuple[Repository, Digest]:
    if not isinstance(target.reference, Digest):
        raise AssertionError(f"{target.kind} without a digest")
    return _repository(target), target.reference


def _entry_count(text: str | None) -> int | None:
    """Parse the `n` of a listing. RegistryError 400 when `n` is not a number."""
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise RegistryError(
            Code.PAGINATION_NUMBER_INVALID, f"n is a number of entries, not {text[:40]!r}", status=400
        )
    return int(text)


def _next_page(request: web.BaseRequest, query: str | None) -> dict[str, str]:
    """Return a Link to the next page on this mirror: relative, because clients refuse another origin."""
    if query is None:
        return {}
    if (ns := request.query.get("ns")) is not None:
        query = f"{query}&{urlencode({'ns': ns})}"
    path, _ = path_and_host(request)
    return {"Link": f'<{path}?{query}>; rel="next"'}


def _stale_headers(record: RequestRecord, staleness: Staleness | None) -> dict[str, str]:
    """Return the headers of a stale response, and note the reason in the access line."""
    if staleness is None:
        return {}
    record.note = f"not confirmed: {staleness.reason}"
    # Revalidation meanwhile is everyday work, which no client needs to show to its user.
    reason = None if staleness.reason == REVALIDATING else staleness.reason
    return responses.stale_headers(staleness.age, reason)
