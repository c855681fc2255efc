"""Registry in this process that speaks the protocol and misbehaves on command.

    async with FakeRegistry() as fake:
        image = fake.add_image("library/app", "latest", [b"layer"])
        fake.fault(Fault(cut_at=3), match=str(image.layers[0]))      # the next such GET breaks after 3 bytes
        gate = fake.hold(str(image.config), after=10)                # and this one waits after 10
        ...
        assert fake.requests("GET", str(image.layers[0])) == 2

Blobs can be served by a second server, the CDN (`fake.cdn = True`), by signed URLs that work as often as
`fake.signature_uses` says.
"""

import json
import ssl
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from urllib.parse import parse_qs, quote

from aiohttp import web

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.fakes.access import BasicAuth, TokenAuth
from tests.fakes.answer import Answer, write
from tests.fakes.content import FakeImage, FakeRepository, StoredManifest, image_manifest
from tests.fakes.faults import NO_FAULT, Fault, Gate, Planned, oci_error
from tests.fakes.limit import RateLimit
from tests.fakes.ranges import AskedRange, RangeWay
from tests.fakes.site import Seen, Site

_JSON = {"Content-Type": "application/json"}
_MISSING = {"manifests": "MANIFEST_UNKNOWN", "blobs": "BLOB_UNKNOWN"}


class FakeRegistry:
    """Registry whose attributes are switches that tests may turn at any time."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.auth: TokenAuth | BasicAuth | None = None
        self.challenges: list[str] | None = None  # WWW-Authenticate lines in place of the right ones
        self.limit: RateLimit | None = None
        self.cdn = False  # blobs by redirect to the second server
        self.location: str | None = None  # blobs by redirect to this URL
        self.redirect_status = 307
        self.signature_uses = 1  # requests that one signed URL allows
        self.signature_status = 403  # the CDN's answer after that
        self.ranges = True
        self.range_way: RangeWay | None = None  # how each range of a blob is answered, in place of rightly
        self.head = True  # False: 405 for every HEAD
        self.negotiates = False  # True: 404 for a manifest whose type is not in Accept
        self.digest_header = True
        self.manifest_type: str | None = None  # Content-Type of every manifest, in place of its own
        self.referrers_api = True
        self.page_size = 1000
        self.piece: int | None = None  # size of the writes that bodies are sent with
        self._repositories: dict[str, FakeRepository] = {}
        self._planned: list[Planned] = []
        self._uses: dict[str, int] = {}
        self._site = Site(self._answer, tls)
        self._cdn_site = Site(self._answer_cdn, tls)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "FakeRegistry":
        await self._stack.enter_async_context(self._site)
        await self._stack.enter_async_context(self._cdn_site)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """Address of the registry: `http://127.0.0.1:PORT`."""
        return self._site.url

    @property
    def cdn_url(self) -> str:
        return self._cdn_site.url

    @property
    def log(self) -> list[Seen]:
        """Requests to the registry, its token server included."""
        return self._site.log

    @property
    def cdn_log(self) -> list[Seen]:
        return self._cdn_site.log

    def requests(self, method: str | None = None, match: str | Digest = "") -> int:
        """Count the requests to the registry itself by method, with `match` in path or query."""
        return _count(self.log, method, str(match))

    def cdn_requests(self, method: str | None = None, match: str | Digest = "") -> int:
        return _count(self.cdn_log, method, str(match))

    def repository(self, name: str) -> FakeRepository:
        """Return a repository, created if it is new."""
        return self._repositories.setdefault(name, FakeRepository())

    def add_blob(self, repository: str, data: bytes, algorithm: str = "sha256") -> Digest:
        digest = Digest.of(data, algorithm)
        self.repository(repository).blobs[str(digest)] = data
        return digest

    def add_manifest(
        self, repository: str, data: bytes, media_type: str = OCI_MANIFEST, tag: str | None = None
    ) -> Digest:
        digest = Digest.of(data)
        self.repository(repository).manifests[str(digest)] = StoredManifest(data, media_type)
        if tag is not None:
            self.repository(repository).tags[tag] = str(digest)
        return digest

    def add_image(self, repository: str, tag: str | None, layers: list[bytes]) -> FakeImage:
        """Add an OCI image with these layers; its config differs for each tag."""
        config = json.dumps(
            {"architecture": "amd64", "os": "linux", "config": {"Image": f"{repository}:{tag}"}}
        )
        data = image_manifest(config.encode(), layers)
        return FakeImage(
            repository=repository,
            tag=tag,
            manifest=self.add_manifest(repository, data, tag=tag),
            manifest_data=data,
            config=self.add_blob(repository, config.encode()),
            config_data=config.encode(),
            layers=tuple(self.add_blob(repository, layer) for layer in layers),
            layers_data=tuple(layers),
        )

    def fault(
        self, fault: Fault, match: str | Digest = "", method: str | None = None, times: int = 1
    ) -> None:
        """Give the fault to the next `times` requests with `match` in the path. Earlier faults go first."""
        self._planned.append(Planned(fault, str(match), method, times))

    def forgive(self) -> None:
        """Forget all faults, and let everybody in."""
        self._planned.clear()
        self.auth = None

    def hold(self, match: str | Digest, after: int = 0, method: str = "GET") -> Gate:
        """Make the next such answer wait after `after` bytes of its body; -1: before its head.

        With `cdn` turned on, the answer of the CDN waits.
        """
        gate = Gate()
        self.fault(Fault(hold=gate, after=after, cdn=self.cdn), match, method)
        return gate

    async def _answer(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        fault = self._next_fault(seen)
        if fault.status is not None:
            return await write(request, Answer(fault.body, _JSON, fault.status), fault, self.piece)
        if seen.path == "/token" and isinstance(self.auth, TokenAuth) and fault.raw is None:
            if fault.hold is not None:
                await fault.hold.wait()
            return await self.auth.token(request, seen)
        answer = self._right_answer(request, seen, fault)
        parts = seen.path.split("/")
        if (
            parts[-2] == "blobs"
            and (data := self.repository("/".join(parts[2:-2])).blobs.get(parts[-1])) is not None
        ):
            answer, fault = self._misanswered(request, answer, fault, data)
        return await write(request, answer, fault, self.piece)

    async def _answer_cdn(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        fault = self._next_fault(seen, cdn=True)
        if fault.status is not None:
            return await write(request, Answer(fault.body, _JSON, fault.status), fault, self.piece)
        signature = seen.query
        self._uses[signature] = self._uses.get(signature, 0) + 1
        if self._uses[signature] > self.signature_uses:
            refused = Answer(
                b"<Error>Expired</Error>", {"Content-Type": "application/xml"}, self.signature_status
            )
            return await write(request, refused, NO_FAULT)
        _, name, digest = seen.path.split("/", 2)
        data = self.repository(name.replace("+", "/")).blobs[digest]
        answer = self._ranged(request, data, fault, {"ETag": '"md5-like"'})
        answer, fault = self._misanswered(request, answer, fault, data)
        return await write(request, answer, fault, self.piece)

    def _misanswered(
        self, request: web.BaseRequest, answer: Answer, fault: Fault, data: bytes
    ) -> tuple[Answer, Fault]:
        """Return the answer to a range as `range_way` has it; other answers as they are."""
        header = request.headers.get("Range")
        if self.range_way is None or header is None or answer.status not in (200, 206, 416):
            return answer, fault
        first, _, last = header.removeprefix("bytes=").partition("-")
        return self.range_way(AskedRange(data, int(first), int(last) + 1 if last else None))

    def _next_fault(self, seen: Seen, cdn: bool = False) -> Fault:
        for plan in self._planned:
            if plan.fits(seen.method, seen.path, cdn):
                plan.times -= 1
                return plan.fault
        return NO_FAULT

    def _right_answer(self, request: web.BaseRequest, seen: Seen, fault: Fault) -> Answer:
        parts = seen.path.split("/")
        if parts[1] != "v2":
            return _error(404, "NAME_UNKNOWN", "no such route")
        name, kind, last = "/".join(parts[2:-2]), parts[-2], parts[-1]
        authorization = request.headers.get("Authorization")
        if self.auth is not None and not self.auth.allows(authorization, name):
            if authorization is not None and isinstance(self.auth, TokenAuth) and self.auth.rejection != 401:
                return _error(self.auth.rejection, "DENIED", "the token has expired")
            return self._challenge(name)
        if isinstance(self.auth, TokenAuth) and self.auth.granted_answer is not None:
            status, body = self.auth.granted_answer
            return Answer(body, _JSON, status)
        if not name:
            return Answer(b"{}", _JSON)
        if request.method == "HEAD" and not self.head:
            return _error(405, "UNSUPPORTED", "no HEAD here")
        user = self._user(request.headers.get("Authorization"))
        if kind == "manifests" and self.limit and (refused := self.limit.refuse(request.method, user)):
            return refused
        answer = self._content(request, seen, fault, (name, kind, last))
        limits = self.limit.headers(user) if kind == "manifests" and self.limit else {}
        return replace(answer, headers={**answer.headers, **limits})

    def _user(self, authorization: str | None) -> str:
        return self.auth.owner(authorization) if isinstance(self.auth, TokenAuth) else ""

    def askers(self, repository: str) -> set[str]:
        """Return the users whose tokens requests for a repository had; "" is an anonymous token or none."""
        seen = [each for each in self.log if each.path.startswith(f"/v2/{repository}/")]
        return {self._user(each.headers.get("Authorization")) for each in seen}

    def _content(
        self, request: web.BaseRequest, seen: Seen, fault: Fault, route: tuple[str, str, str]
    ) -> Answer:
        name, kind, last = route
        repository = self._repositories.get(name)
        if repository is None:
            return _error(404, "NAME_UNKNOWN", "repository name not known to registry")
        if kind == "blobs" and last in repository.blobs:
            if self.cdn or self.location is not None:
                return self._redirect(name, last)
            return self._ranged(request, repository.blobs[last], fault, {"Docker-Content-Digest": last})
        if kind == "manifests" and (found := repository.manifest(last)):
            accept = ",".join(request.headers.getall("Accept", []))
            if self.negotiates and found[1].media_type not in accept:
                return _error(404, "MANIFEST_UNKNOWN", "found, but not of a type in the accept header")
            return self._manifest(*found, fault)
        if kind == "tags":
            return self._tags(name, repository, seen)
        if kind == "referrers" and self.referrers_api:
            return self._referrers(repository, last, seen)
        return _error(404, _MISSING.get(kind, "UNSUPPORTED"), f"{last} unknown")

    def _challenge(self, repository: str) -> Answer:
        lines = self.challenges
        if lines is None:
            lines = self.auth.challenges(self.url, repository) if self.auth else []
        # One header line; a test for several uses a Fault's raw answer.
        headers = {"WWW-Authenticate": ", ".join(lines)} if lines else {}
        return Answer(oci_error("UNAUTHORIZED", "authentication required"), {**_JSON, **headers}, 401)

    def _redirect(self, name: str, digest: str) -> Answer:
        location = self.location
        if location is None:
            count = len(self.log)
            location = (
                f"{self.cdn_url}/{quote(name.replace('/', '+'), safe='+')}/{digest}?signature={count}%2Bx%2F"
            )
        return Answer(
            b"<html>moved</html>", {"Location": location, "Content-Type": "text/html"}, self.redirect_status
        )

    def _ranged(self, request: web.BaseRequest, data: bytes, fault: Fault, headers: dict[str, str]) -> Answer:
        if fault.data is not None:
            data = fault.data
        headers = {"Content-Type": "application/octet-stream", **headers}
        span = None
        if self.ranges:
            headers["Accept-Ranges"] = "bytes"
        if self.ranges and not fault.no_ranges:
            span = _parse_range(request.headers.get("Range"), len(data))
        if span is None:
            return Answer(data, headers)
        start, stop = span
        if start >= len(data):
            return Answer(b"", {**headers, "Content-Range": f"bytes */{len(data)}"}, 416)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return Answer(data[start:stop], headers, 206)

    def _manifest(self, digest: str, manifest: StoredManifest, fault: Fault) -> Answer:
        kind = manifest.media_type if self.manifest_type is None else self.manifest_type
        headers = {"Content-Type": kind or "", "ETag": f'"{digest}"'}
        if self.digest_header:
            headers["Docker-Content-Digest"] = digest
        return Answer(manifest.data if fault.data is None else fault.data, headers)

    def _tags(self, name: str, repository: FakeRepository, seen: Seen) -> Answer:
        query = parse_qs(seen.query)
        size = min(int(query.get("n", [str(self.page_size)])[0]), self.page_size)
        after = query.get("last", [""])[0]
        left = sorted(tag for tag in repository.tags if tag > after)
        headers = dict(_JSON)
        if len(left) > size:
            headers["Link"] = f'</v2/{name}/tags/list?n={size}&last={quote(left[size - 1])}>; rel="next"'
        return Answer(json.dumps({"name": name, "tags": left[:size]}).encode(), headers)

    def _referrers(self, repository: FakeRepository, digest: str, seen: Seen) -> Answer:
        start = int(parse_qs(seen.query).get("page", ["0"])[0])
        found = repository.referrers(digest)
        headers = {"Content-Type": OCI_INDEX}
        stop = start + self.page_size
        if len(found) > stop:
            headers["Link"] = f'<{seen.path}?page={stop}>; rel="next"'
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found[start:stop]}
        return Answer(json.dumps(body).encode(), headers)


def _count(log: list[Seen], method: str | None, match: str) -> int:
    return sum(method in (None, seen.method) and match in f"{seen.path}?{seen.query}" for seen in log)


def _error(status: int, code: str, message: str) -> Answer:
    return Answer(oci_error(code, message), _JSON, status)


def _parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return start and stop of one range; None for none or for several."""
    if header is None or not header.startswith("bytes=") or "," in header:
        return None
    first, _, last = header.removeprefix("bytes=").partition("-")
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size
