"""A registry that content is pushed to: uploads, mounts, manifests, deletions (distribution-spec, "Push").

All methods raise UpstreamError and what the content of a blob raises, nothing else; temporary failures have
been retried by then. Credentials and content go to the origin of the registry alone: no redirect of a push,
and no upload elsewhere, is followed (invariant 6).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial

from yarl import URL

from mirror.config.endpoints import UpstreamSettings
from mirror.credentials.login import Login
from mirror.metrics.metrics import Metrics
from mirror.oci.challenge import parse_challenges
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import ACCEPT, MAX_MANIFEST_BYTES
from mirror.oci.reference import Tag
from mirror.upstream.auth import AuthDemand, Authorizer
from mirror.upstream.error_body import MAX_ERROR_BYTES, errors_in, excerpt, failure_of
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.redirect import origin
from mirror.upstream.http.transport import Response, Transport
from mirror.upstream.retry import Retrier, RetryPolicy, parse_retry_after
from mirror.util.tasks import Tasks

# Opens the content of a blob from its beginning; called again for each attempt.
OpenBody = Callable[[], AsyncIterator[bytes]]

# Time without progress of an upload after which it is given up, in times `read_timeout`.
PATIENCE = 4.0

# Time, in seconds, in which an attempt may be repeated: a push is no client that waits for headers.
RETRIED_SECONDS = 600.0

# Time, in seconds, to tell a registry that an upload is given up: a mirror that stops does not wait for long.
ABANDON_SECONDS = 2.0


class PushClient:
    """Client of one registry. Repository paths are the registry's own."""

    def __init__(
        self,
        settings: UpstreamSettings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`headers`: of each request that writes."""
        self.name = settings.name
        self._transport = Transport(settings, metrics)
        self._tasks = Tasks()
        source = next(iter(settings.logins()), None)
        login = None if source is None else Login(settings.name, source, self._tasks, clock)
        self._auth = Authorizer(settings, self._transport, clock, login, push_scope)
        self._retry = Retrier(RetryPolicy(settings.attempts, elapsed=RETRIED_SECONDS), clock, sleep)
        self._patience = PATIENCE * settings.read_timeout
        self._headers = dict(headers or {})

    async def has_blob(self, path: str, digest: Digest) -> bool:
        """Return whether the repository has a blob."""
        url = self._url(f"{path}/blobs/{digest}")
        response = await self._retry(
            lambda: self._ask("HEAD", url, path, (200, 307, 302, 301, 308, 404, 405))
        )
        return response.status not in (404, 405)

    async def digest_of(self, path: str, reference: Tag | Digest) -> Digest | None:
        """Return the digest of a manifest as the registry tells it; None if it has none, or tells none."""
        url = self._url(f"{path}/manifests/{reference}")
        headers = {"Accept": ", ".join(ACCEPT)}
        response = await self._retry(lambda: self._ask("HEAD", url, path, (200, 404), headers))
        if response.status == 404:
            return None
        with contextlib.suppress(RegistryError):
            return Digest.parse(response.headers.get("Docker-Content-Digest", ""))
        return None

    async def get_manifest(self, path: str, reference: Tag | Digest) -> bytes | None:
        """Return the bytes of a manifest; None if there is none."""

        async def get() -> bytes | None:
            url, headers = self._url(f"{path}/manifests/{reference}"), {"Accept": ", ".join(ACCEPT)}
            response = await self._send("GET", url, path, headers)
            try:
                if response.status == 404:
                    return None
                await self._require(response, (200,))
                return await self._transport.read(response, MAX_MANIFEST_BYTES)
            finally:
                response.close()

        return await self._retry(get)

    async def put_blob(
        self, path: str, digest: Digest, size: int, body: OpenBody, source: str | None = None
    ) -> bool:
        """Bring a blob into the repository; return True if it was mounted, and nothing was sent.

        `source`: another repository of the registry that has the blob.
        """
        return await self._retry(partial(self._put_blob, path, digest, size, body, source))

    async def put_manifest(self, path: str, reference: Tag | Digest, media_type: str, data: bytes) -> bool:
        """Push a manifest; return whether the registry has noted its subject, if it has one."""
        url, headers = self._url(f"{path}/manifests/{reference}"), {"Content-Type": media_type}
        response = await self._retry(
            lambda: self._ask("PUT", url, path, (200, 201, 202), {**headers, **self._headers}, data)
        )
        told = response.headers.get("Docker-Content-Digest")
        if told is not None and not _is_of(told, data):
            raise self._error(
                Failure.INVALID, f"{path}: the manifest was kept as {told:.140}, which it is not"
            )
        return "OCI-Subject" in response.headers

    async def delete_manifest(self, path: str, reference: Tag | Digest) -> None:
        """Remove a tag, or a manifest; nothing for one that is not there."""
        url = self._url(f"{path}/manifests/{reference}")
        await self._retry(lambda: self._ask("DELETE", url, path, (200, 202, 404), self._headers))

    async def close(self) -> None:
        """Close all connections."""
        await self._tasks.close()
        await self._transport.close()

    async def _put_blob(
        self, path: str, digest: Digest, size: int, body: OpenBody, source: str | None
    ) -> bool:
        query = f"?mount={digest}&from={source}" if source is not None else ""
        key = path if source is None else f"{path} {source}"
        begin = self._url(f"{path}/blobs/uploads/{query}")
        response = await self._ask("POST", begin, key, (201, 202), self._headers, b"")
        if response.status == 201 and source is not None:
            return True
        location = self._location(response)
        text, mark = str(location), "&" if location.raw_query_string else "?"
        url = URL(f"{text}{mark}digest={digest}", encoded=True)
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream", **self._headers}
        try:
            await self._upload(url, path, headers, body)
        except BaseException:
            with contextlib.suppress(UpstreamError, TimeoutError):  # the session ends by itself, too
                async with asyncio.timeout(ABANDON_SECONDS):
                    await self._ask("DELETE", location, path, range(200, 500))
            raise
        return False

    async def _upload(self, url: URL, path: str, headers: Mapping[str, str], body: OpenBody) -> None:
        failed: list[Exception] = []  # of the content: the connection breaks off then, without its fault
        try:
            async with asyncio.timeout(self._patience) as limit:

                async def pieces() -> AsyncIterator[bytes]:
                    loop = asyncio.get_running_loop()
                    try:
                        async for piece in body():
                            yield piece
                            limit.reschedule(loop.time() + self._patience)
                    except Exception as error:
                        failed.append(error)
                        raise

                await self._ask("PUT", url, path, (201, 204), headers, pieces)
        except UpstreamError:
            if failed:
                raise failed[-1] from None
            raise
        except TimeoutError:
            raise self._error(Failure.TIMEOUT, f"{path}: the upload came to a standstill") from None

    async def _ask(
        self,
        method: str,
        url: URL,
        key: str,
        accepted: "range | tuple[int, ...]",
        headers: Mapping[str, str] | None = None,
        body: bytes | OpenBody | None = None,
    ) -> Response:
        """Return an answer of one of the accepted statuses, its body dropped; raise for all others."""
        response = await self._send(method, url, key, headers, body)
        try:
            await self._require(response, accepted)
        finally:
            response.release()
        return response

    async def _send(
        self,
        method: str,
        url: URL,
        key: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | OpenBody | None = None,
    ) -> Response:
        """Return the answer after at most one challenge. `key`: of the token, see `push_scope`."""
        authorization = await self._auth.current(key)
        response = await self._exchange(method, url, headers, authorization, body)
        if response.status != 401:
            self._auth.note_answer(authorization, response.status)
            return response
        challenges = tuple(parse_challenges(response.headers.getall("WWW-Authenticate", [])))
        response.release()
        demand = AuthDemand(challenges, key, own=True, rejected=authorization)
        self._auth.note_answer(authorization, 401)
        self._auth.forget_rejected(demand)
        authorization = await self._auth.answer(demand)
        response = await self._exchange(method, url, headers, authorization, body)
        self._auth.note_answer(authorization, response.status)
        return response

    async def _exchange(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str] | None,
        authorization: str | None,
        body: bytes | OpenBody | None,
    ) -> Response:
        sent = dict(headers or {})
        if authorization is not None:
            sent["Authorization"] = authorization
        content = body if body is None or isinstance(body, bytes) else body()
        return await self._transport.upload(method, url, sent, content)

    async def _require(self, response: Response, accepted: "range | tuple[int, ...]") -> None:
        """Raise the failure that an answer of another status means, in the registry's own words."""
        if response.status in accepted:
            return
        body = b""
        if response.method != "HEAD":
            with contextlib.suppress(UpstreamError):
                body = await self._transport.read(response, MAX_ERROR_BYTES)
        failure = failure_of(response.status, frozenset(code for code, _ in errors_in(body)))
        words = self._auth.redacted(excerpt(body, response.content_type))
        message = f"{_doing(response.method)} answered {response.status}{f': {words}' if words else ''}"
        error = self._error(failure, message)
        error.status = response.status
        error.retry_after = parse_retry_after(response.headers.get("Retry-After"))
        raise error

    def _location(self, response: Response) -> URL:
        """Return where an upload goes on: at the registry's own origin."""
        text, own = response.headers.get("Location", ""), self._transport.url
        try:
            found = response.url.join(URL(text, encoded=True)) if text else None
            if found is not None and (found.host, found.explicit_port) == (own.host, own.explicit_port):
                found = found.with_scheme(own.scheme) if found.scheme != own.scheme else found
        except ValueError:
            found = None
        if found is None or origin(found) != origin(own):
            place = "nowhere" if found is None else found.host
            raise self._error(Failure.INVALID, f"uploads are sent to {place}, which is another server")
        return found

    def _url(self, path: str) -> URL:
        return URL(f"{self._transport.url}/v2/{path}", encoded=True)

    def _error(self, failure: Failure, message: str) -> UpstreamError:
        return UpstreamError(failure, f"{self.name}: {message}")


def push_scope(key: str) -> str:
    """Return the scope of a token: `repository`, or `repository source` for a mount from another one."""
    target, _, source = key.partition(" ")
    scope = f"repository:{target}:pull,push"
    return f"{scope} repository:{source}:pull" if source else scope


def _is_of(told: str, data: bytes) -> bool:
    try:
        digest = Digest.parse(told)
    except RegistryError:
        return False
    return digest == Digest.of(data, digest.algorithm)


def _doing(method: str) -> str:
    return {"PUT": "a push", "POST": "the start of an upload", "DELETE": "a deletion"}.get(
        method, "a question"
    )
