"""Short ranges of stored blobs, sent without parsing the request, from files that are kept open.

Lazy snapshotters ask for thousands of short ranges of one blob, with the same head but for two numbers. Once
the full path has answered two such requests from a file that the store keeps open, a further request whose
head is the same, but for the range, is answered from the page cache. What holds for the response cache
(`mirror.web.response_cache`) holds here: one access scope, a lifetime, the store's epochs.
"""

import asyncio
import errno
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import HttpVersion11, hdrs, web

from mirror.cache.readers import StoredReader
from mirror.cache.results import Outcome
from mirror.metrics.metrics import Metrics
from mirror.store.blobs.open_files import KeptFile, SharedFile
from mirror.util.log import get_logger
from mirror.web.fastpath.hit_log import HitLog, KnownResponse, client_behind_proxy, lifetime, line_template
from mirror.web.fastpath.logins import ScopeKey
from mirror.web.fastpath.seen_once import SeenOnce
from mirror.web.framing import HEAD_END
from mirror.web.request_log import RequestRecord

log = get_logger(__name__)

# One range with both ends, as clients write it; other forms, and several, take the full path.
RANGE = re.compile(rb"\r\n[Rr]ange: bytes=([0-9]{1,15})-([0-9]{1,15})(?=\r\n)")

# Longest range, in bytes, that is read in the event loop, from memory: a few microseconds.
LONGEST_RANGE = 64 * 1024

# Blobs that are known, at most.
MOST_BLOBS = 256

# Hashes of heads seen once, waiting for the second time; all are forgotten at this number.
MAX_SEEN_ONCE = 1024

# Errors of reads that ask for bytes in memory only: these are not there, or the file system cannot tell.
NOT_IN_MEMORY = frozenset({errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL})

Key = tuple[ScopeKey, bytes]


class KnownBlob(KnownResponse, eq=False, kw_only=True):
    """A blob whose file is open. `head`: of a response, with the names of what differs; `size` in bytes."""

    file: KeptFile
    size: int
    head: bytes


class RangeCache:
    """Blobs whose files are open, by the head of requests without the range."""

    def __init__(
        self,
        metrics: Metrics,
        hits: HitLog,
        clock: Callable[[], float],
        is_outdated: Callable[[KnownResponse], bool],
    ) -> None:
        """`is_outdated`: whether content was removed, or rights have changed, since a response was known."""
        self._metrics = metrics
        self._hits = hits
        self._clock = clock
        self._is_outdated = is_outdated
        self._blobs: OrderedDict[Key, KnownBlob] = OrderedDict()
        self._seen_once = SeenOnce(MAX_SEEN_ONCE)
        self._closed = False
        self.answered = 0  # ranges that were sent

    def __len__(self) -> int:
        """Return the number of known blobs."""
        return len(self._blobs)

    def answer(
        self,
        scope: ScopeKey,
        head: bytes,
        transport: asyncio.WriteTransport,
        client: str,
        date: Callable[[], bytes],
    ) -> bool:
        """Write the response to `head` if it asks for a short range of a known blob that is in memory.

        `date` returns the value of the header. Returns False, with nothing written, for any other request.
        """
        found = RANGE.search(head) if self._blobs else None
        if found is None or not head.endswith(HEAD_END):  # the range may be behind the end of a head
            return False
        key = (scope, head[: found.start()] + head[found.end() :])
        blob = self._blobs.get(key)
        if blob is None:
            return False
        started = self._clock()
        if started >= blob.expires or blob.file.descriptor < 0 or self._is_outdated(blob):
            del self._blobs[key]
            return False
        first, last = int(found[1]), min(int(found[2]), blob.size - 1)
        length = last + 1 - first
        if not 0 < length <= LONGEST_RANGE or transport.get_write_buffer_size():
            return False
        body = _read_from_memory(blob.file.descriptor, first, length)
        if body is None or not self._hits.passes(blob, client, length):
            return False
        self._blobs.move_to_end(key)
        values = {b"date": date(), b"length": length, b"first": first, b"last": last}
        transport.write(b"".join((blob.head % values, body)))
        self._hits.add(blob, length, client, (time.time(), self._clock() - started))
        self.answered += 1
        return True

    def remember(
        self, request: Key, record: RequestRecord, reader: object, response: web.StreamResponse
    ) -> None:
        """Remember the file of a blob of which a short range has been sent, if such a request came before.

        `request`: its scope and head. Never raises: the response was sent.
        """
        try:
            self._remember(request, record, reader, response)
        except Exception as error:  # no traceback: what a client sent must not fill the log
            log.warning("range not remembered", id=record.id, reason=type(error).__name__)

    def close(self) -> None:
        """Stop answering."""
        self._closed = True
        self._blobs.clear()

    def _remember(
        self, request: Key, record: RequestRecord, reader: object, response: web.StreamResponse
    ) -> None:
        scope, head = request
        found = RANGE.search(head)
        if found is None or self._closed or not isinstance(reader, StoredReader) or not reader.proven:
            return
        if not _is_short_hit(record, response):
            return
        key = (scope, head[: found.start()] + head[found.end() :])
        if key in self._blobs or b"range" in _fields(key[1]) or not self._seen_once.again(key):
            return
        file: object = reader.file
        if not isinstance(file, SharedFile):  # opened for this request, and not kept
            return
        while len(self._blobs) >= MOST_BLOBS:
            self._blobs.popitem(last=False)
        self._blobs[key] = KnownBlob(
            expires=self._clock() + lifetime(record, record.content_ttl),
            removal_epoch=record.removal_epoch,
            access_epoch=record.access_epoch,
            stats=self._metrics.requests.of(record.kind, record.outcome.value),
            digest=record.digest,
            line=line_template(record),
            client=client_behind_proxy(record),
            names=record.identity.names,
            audit=self._hits.audit_entry(record),
            fields=self._hits.shown_fields(record),
            file=file.kept,
            size=reader.size,
            head=_head_of(response, reader.size),
        )


def _is_short_hit(record: RequestRecord, response: web.StreamResponse) -> bool:
    """Return whether a short range was sent from the store, and may be sent again to the same request."""
    again = record.outcome is Outcome.HIT and lifetime(record, record.content_ttl) > 0 and record.note is None
    keeps = response.keep_alive and record.request.version == HttpVersion11
    return bool(again and keeps) and response.status == 206 and record.bytes <= LONGEST_RANGE


def _fields(head: bytes) -> bytes:
    """Return the header fields of a head, in lower case."""
    return head[head.index(b"\r\n") :].lower()


def _read_from_memory(descriptor: int, offset: int, length: int) -> bytearray | None:
    """Return bytes of a file that are in the page cache; None if not all are, or if they cannot be read."""
    body = bytearray(length)
    try:
        count = os.preadv(descriptor, [body], offset, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno not in NOT_IN_MEMORY:
            log.debug("range not read from memory", reason=os.strerror(error.errno or 0))
        return None
    return body if count == length else None


def _head_of(response: web.StreamResponse, size: int) -> bytes:
    """Return the head of a sent response as aiohttp wrote it, with %(names) for what differs."""
    differing: dict[str, str] = {
        hdrs.DATE: "%(date)b",
        hdrs.CONTENT_LENGTH: "%(length)d",
        hdrs.CONTENT_RANGE: f"bytes %(first)d-%(last)d/{size}",
    }
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    for name, value in response.headers.items():
        lines.append(f"{name}: {differing.get(name, value.replace('%', '%%'))}")
    return "\r\n".join([*lines, "", ""]).encode()
