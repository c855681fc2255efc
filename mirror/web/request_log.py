"""The record of one request and its outcome: the access line and the metrics."""

import itertools
import os
import re
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from aiohttp import web
from msgspec.structs import replace

from mirror.access.identity import Identity
from mirror.access.secret_path import shown_path
from mirror.access.tokens import redacted
from mirror.cache.results import FOREVER, Outcome
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Target
from mirror.upstream.guests.guest_login import GuestLogin
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger

if TYPE_CHECKING:
    from mirror.cache.cache import Cache
    from mirror.cache.results import ManifestAnswer
    from mirror.oci.reference import Repository

log = get_logger("access")

# The user and password that a request target in absolute form may have in front of the host.
USER = re.compile(r"(?<=://)[^/]*@")

# Bytes of a path that are searched for secrets; a longer path is refused, and 200 are shown.
PATH_BYTES = 2048

_ids = itertools.count(secrets.randbits(62))


def _restart_ids() -> None:
    """Give a forked worker a random start, so that two workers never count from the same number."""
    global _ids  # noqa: PLW0603  # of this process
    _ids = itertools.count(secrets.randbits(62))


os.register_at_fork(after_in_child=_restart_ids)


def new_id() -> str:
    """Return a request's id: 16 hex digits, unique in this process."""
    return f"{next(_ids):016x}"


class BodyPacer(Protocol):
    """The pace of a response's body (`mirror.web.limits.lines.Pacer`)."""

    async def take(self, wanted: int) -> int: ...

    async def take_all(self, size: int) -> None: ...


class BodyProgress(Protocol):
    """The progress of a response's body."""

    @property
    def sent(self) -> int: ...


class Checks(Protocol):
    """Checks of what a client is given (`mirror.web.limits.contents.ContentChecks`)."""

    async def check_manifest(
        self, cache: "Cache", repository: "Repository", answer: "ManifestAnswer"
    ) -> None: ...

    async def check_blob(self, cache: "Cache", repository: "Repository", digest: Digest) -> None: ...


class RequestRecord:
    """Facts about one request, filled in while the request is answered, and reported once at the end.

    `removal_epoch`, `access_epoch`: the store's (`mirror.store.invalidation`) when the request came.
    """

    def __init__(self, request: web.BaseRequest, removal_epoch: int = 0, access_epoch: int = 0) -> None:
        self.request = request
        self.removal_epoch = removal_epoch
        self.access_epoch = access_epoch
        self.push_epoch: int | None = None  # the store's, where the answer ends with a push
        self.identity = Identity(request.remote or "")
        self.identity_ttl = FOREVER  # seconds for which the same credentials have the same identity
        self.path_prefix = ""  # of the request's path, which is in front of what the registry API parses
        self.handles: tuple[str, ...] = ()  # of the claims that credentials have proven
        self.has_login = False  # credentials were taken, a token of nobody too
        self.guest: GuestLogin | None = None  # credentials for the upstream, which are not this mirror's
        self.may_log_in = False  # the request was sent to a name at which clients are challenged
        self.id = new_id()
        self.target: Target | None = None
        self.digest: Digest | None = None
        self.outcome = Outcome.ERROR
        self.status = 0
        self.bytes = 0
        self.body: BodyProgress | None = None  # while a body is streamed
        self.length: int | None = None  # of that body, if it is known
        self.note: str | None = None
        self.rule: str | None = None  # the access rule that has decided
        self.age_matters = False  # it depends on the age of the image
        self.waited = 0.0  # seconds for a limit on requests
        self.pacer: BodyPacer | None = None  # where a limit bounds the bandwidth
        self.checks: Checks | None = None  # where limits bound what the client is given
        self.ttl = 0.0  # seconds for which the same request has the same response
        self.content_ttl = 0.0  # seconds for which content that was streamed may be sent again
        # Called with a blob's reader when its head was sent, and when it was streamed to its end.
        self.on_begun: Callable[[object, web.StreamResponse], object] = ignore
        self.on_sent: Callable[[object, web.StreamResponse], object] = ignore
        self.streaming = False  # the head was sent: only an early end can report an error from now on
        self._started = time.perf_counter()
        self._first_byte: float | None = None

    def again(self, request: web.BaseRequest, client: str) -> "RequestRecord":
        """Return the record of another request that gets the same, from a client with the same rights.

        `client`: the client's address.
        """
        record = RequestRecord(request, self.removal_epoch, self.access_epoch)
        record.identity = replace(self.identity, address=client)
        record.target, record.digest, record.rule = self.target, self.digest, self.rule
        record.outcome, record.status = Outcome.HIT, 200
        return record

    def bytes_in_memory(self) -> int:
        """Return the bytes of the response's body, if it was sent from memory."""
        return 0 if self.streaming else self.bytes

    def first_byte(self) -> None:
        """Note the time at which the head of the response is ready to go."""
        if self._first_byte is None:
            self._first_byte = time.perf_counter() - self._started

    @property
    def client(self) -> str:
        """The client's address; "" if the connection has none."""
        return self.identity.address

    @property
    def kind(self) -> str:
        return self.target.kind.value if self.target else "other"

    def report(self, metrics: Metrics) -> dict[str, object]:
        """Count the request and write its access line; return the line's fields."""
        total = time.perf_counter() - self._started
        first = total if self._first_byte is None else self._first_byte
        metrics.requests.of(self.kind, self.outcome.value).add(self.bytes, first, total, self.id)
        fields = self.fields(first, total)
        log.info("request", **fields)
        return fields

    def fields(self, first: float = 0.0, total: float = 0.0) -> dict[str, object]:
        """Return the access line's fields. `first`, `total`: seconds to the response's head and end."""
        fields: dict[str, object] = {
            "id": self.id,
            "client": self.client,
            **({"identity": list(self.identity.names)} if self.identity.names else {}),
            "method": self.request.method,
            "kind": self.kind,
            "status": self.status,
            "outcome": self.outcome.value,
            "bytes": self.bytes,
            "first_byte_ms": round(first * 1000, 2),
            "total_ms": round(total * 1000, 2),
        }
        if self.target is None:
            fields["path"] = shown_path(USER.sub("", self.request.raw_path.partition("?")[0])[:PATH_BYTES])[
                :200
            ]
        else:
            fields["upstream"] = self.target.upstream
            if self.target.repository is not None:
                fields["repository"] = self.target.repository.path
            if self.target.reference is not None:
                fields["reference"] = str(self.target.reference)
        if self.digest is not None:
            fields["digest"] = str(self.digest)
        if self.note is not None:
            fields["note"] = redacted(self.note)
        if self.waited:
            fields["waited_ms"] = round(self.waited * 1000, 2)
        return fields
