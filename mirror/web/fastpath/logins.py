"""Logins in the heads of requests: clients with the same rights share what is remembered.

Each client that logs in has an Authorization header of its own, so that ten thousand clients would have ten
thousand copies of one response, each found by nobody else. Once the full path has verified the header, a
response is remembered for the head *without* it and for the rights that the login gives. Both are compared at
each hit: whose the header is, and what such a client may have.
"""

import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Hashable

from aiohttp import hdrs
from msgspec import Struct

from mirror.util.callbacks import ignore
from mirror.util.lru import LRUCache
from mirror.web.framing import HEAD_END
from mirror.web.request_log import RequestRecord

# The header as most clients write it; with another spelling of it a head is remembered as a whole.
HEADER = b"\r\nAuthorization: "
NAME = b"\nauthorization"

# What no head has whose header is cut out: a line that goes on with the next one.
FOLDED = (b"\n ", b"\n\t")

# The number that stands for a scope of connections (`mirror.web.response_cache.ResponseCache.scope_key`).
ScopeKey = int

# Longest header that is compared as it is, in bytes; of a longer one a hash is.
SHORT = 256

# How long a login is known, in seconds. A change of rights ends it at once; the last use of a token is noted
# when it is verified again.
KNOWN_SECONDS = 300.0

# Room for known logins and for clients with the same rights, in bytes: more than ten thousand each.
KNOWN_BYTES = 8 * 1024 * 1024

# Bytes that a known login costs besides its header and names.
OVERHEAD = 600


class Peers(Struct, frozen=True, eq=False):
    """The clients of one scope and with the same rights: they get the same responses."""

    scope: ScopeKey
    rights: Hashable


# The key of a shared response: whose it is, and the head without the header.
SharedKey = tuple[Peers, bytes]


class KnownLogin(Struct, frozen=True, eq=False):
    """A verified header. `names`: what the client has proven to be; `shown`: that in JSON, "" without any.

    `hashed`: the header is known by a hash of it alone.
    """

    peers: Peers
    names: tuple[str, ...]
    shown: str
    expires: float
    access_epoch: int
    size: int
    hashed: bool

    def covers(self, later: "KnownLogin") -> bool:
        """Return whether this is still true where a later look at the header has found that."""
        return later.peers is self.peers and later.names == self.names and later.expires >= self.expires


class KnownLogins:
    """The headers that were verified lately; `known`: by scope and header, the oldest first.

    `rights_of`: returns the rights of the client of a request, None where its response is for it alone.
    `on_change`: called when a header that is known turns out to be another client's, or good for less.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self.known: OrderedDict[tuple[ScopeKey, bytes], KnownLogin] = OrderedDict()
        self._size = 0
        self._limit = KNOWN_BYTES
        self._peers: LRUCache[tuple[ScopeKey, Hashable], Peers] = LRUCache(KNOWN_BYTES)
        self.rights_of: Callable[[RequestRecord], Hashable | None] = _none
        self.on_change: Callable[[], object] = ignore

    def find(self, scope: ScopeKey, head: bytes, now: float) -> tuple[SharedKey, KnownLogin] | None:
        """Return the key of the response to `head`, and whose login it has; None without a known one.

        The caller compares the access epochs of login and response.
        """
        start = head.find(HEADER)
        if start < 0 or not head.endswith(HEAD_END):  # the header may be behind the end of a head
            return None
        end = head.find(b"\r\n", start + 2)
        header = head[start:end]
        login = self.known.get((scope, header if end - start <= SHORT else self._hash(header)))
        if login is None or now >= login.expires:
            return None
        return (login.peers, head[:start] + head[end:]), login

    def note(self, scope: ScopeKey, head: bytes, record: RequestRecord) -> SharedKey | None:
        """Note the login of a request; return the key for its response, None if that is not to be shared."""
        rights = self.rights_of(record) if record.has_login else None
        start = head.find(HEADER)
        if rights is None or start < 0 or not _is_plain(head):
            return None
        end = head.find(b"\r\n", start + 2)
        shown = record.request.headers.getall(hdrs.AUTHORIZATION, [])
        if [each.encode("utf-8", "surrogateescape") for each in shown] != [
            head[start + len(HEADER) : end].strip()
        ]:
            return None
        names, header = record.identity.names, head[start:end]
        mark = header if len(header) <= SHORT else self._hash(header)
        login = KnownLogin(
            self._group(scope, rights),
            names,
            json.dumps(list(names)) if names else "",
            self._clock() + min(record.identity_ttl, KNOWN_SECONDS),
            record.access_epoch,
            len(mark) + 2 * sum(map(len, names)) + OVERHEAD,
            mark is not header,
        )
        self._put((scope, mark), login)
        return login.peers, head[:start] + head[end:]

    def close(self) -> None:
        """Forget all logins, and know none any more."""
        self._limit = 0
        self.known.clear()

    def _put(self, mark: tuple[ScopeKey, bytes], login: KnownLogin) -> None:
        """Keep a login as the latest one, and drop the oldest ones beyond the limit."""
        before = self.known.pop(mark, None)
        if before is not None and not before.covers(login):
            self.on_change()
        self._size += login.size - (0 if before is None else before.size)
        self.known[mark] = login
        while self._size > self._limit and self.known:
            self._size -= self.known.popitem(last=False)[1].size

    def _group(self, scope: ScopeKey, rights: Hashable) -> Peers:
        peers = self._peers.get((scope, rights))
        if peers is None:
            peers = Peers(scope, rights)
            self._peers.put((scope, rights), peers, 0)
        return peers

    def _hash(self, header: bytes) -> bytes:
        return hashlib.blake2b(header, key=self._key, digest_size=32).digest()


def _is_plain(head: bytes) -> bool:
    """Return whether a head has the header once, and no line that goes on with the next one."""
    return head.lower().count(NAME) == 1 and not any(each in head for each in FOLDED)


def _none(_record: RequestRecord) -> None:
    return None
