"""Responses that clients with logins share: who may have which, and the heads that they are asked by.

A response is kept once for all clients that get the same bytes. Which of them may have it is a verdict of the
full path about clients with the same rights, with a term of its own. So a response at which the full path has
looked again for one client is good again for all whose verdict still holds: with a thousand rules one look is
needed, not a thousand.

A head that comes again costs one look-up, as without logins: `SharedResponses.heads` has the response by the
whole head, and the login in it. Responses are referred to weakly: what the response cache drops, nothing here
keeps.
"""

from collections.abc import Callable, Hashable
from weakref import ReferenceType, ref

from msgspec import Struct

from mirror.oci.reference import TargetKind
from mirror.util.lru import LRUCache
from mirror.web.fastpath.hit_log import LONGEST_LIFE_SECONDS, SHARED_VARYING, KnownResponse
from mirror.web.fastpath.logins import KNOWN_SECONDS, KnownLogin, KnownLogins, ScopeKey, SharedKey
from mirror.web.request_log import RequestRecord

# Room for verdicts and for heads, in bytes each: more than ten thousand of the usual length.
VERDICTS_BYTES = 16 * 1024 * 1024
HEADS_BYTES = 16 * 1024 * 1024

# Bytes that a head costs besides its own: key, entry, slot in the table.
OVERHEAD = 300

# Kinds of content, which is the same for all who get it.
CONTENT = (TargetKind.MANIFEST, TargetKind.BLOB)

# Fields of the access line in which two requests for one response differ.
UNNAMED = (*SHARED_VARYING, "waited_ms")

# A head, and the scope of the connection that it came by.
HeadKey = tuple[ScopeKey, bytes]


class CachedResponse(KnownResponse, eq=False, kw_only=True, weakref=True):
    """The bytes of a response without its Date. `length`: bytes of the body."""

    before_date: bytes
    after_date: bytes
    length: int

    def renew(self, expires: float, record: RequestRecord) -> None:
        """Extend the life of the response to `expires`: the full path has just given an equal one."""
        self.expires = expires
        self.removal_epoch, self.access_epoch = record.removal_epoch, record.access_epoch
        self.push_epoch = record.push_epoch


class SharedName(Struct, frozen=True):
    """The identity of a response: its owner, the head without a login, its bytes, and what is recorded."""

    owner: Hashable
    head: bytes
    parts: tuple[bytes, bytes]
    recorded: str


class RightsVerdict(Struct, frozen=True, eq=False):
    """The word of the full path that some clients get a response, in one access epoch, until `expires`."""

    response: ReferenceType[CachedResponse]
    expires: float
    access_epoch: int


class KnownHead(Struct, frozen=True, eq=False):
    """The response to a head, and the login in it. `expires`: when verdict or login does."""

    response: ReferenceType[CachedResponse]
    login: KnownLogin
    expires: float
    access_epoch: int


class SharedResponses:
    """The verdicts, and the heads that were found by them."""

    def __init__(
        self,
        clock: Callable[[], float],
        is_outdated: Callable[[KnownResponse], bool],
        limit: int = HEADS_BYTES,
    ) -> None:
        """`is_outdated`: whether a response has ended, with its content or a right. `limit`: of heads."""
        self._clock = clock
        self._is_outdated = is_outdated
        self.logins = KnownLogins(clock)
        self.logins.on_change = self._forget_heads
        self.heads: dict[HeadKey, KnownHead] = {}
        self._verdicts: LRUCache[SharedKey, RightsVerdict] = LRUCache(VERDICTS_BYTES)
        self._size = 0  # of the heads
        self._limit = limit

    def allow(self, key: SharedKey, record: RequestRecord, response: CachedResponse) -> None:
        """Note that clients may have a response, as the full path has found for one of them."""
        # What depends on the age of an image changes with the time alone.
        longest = LONGEST_LIFE_SECONDS if record.age_matters else KNOWN_SECONDS
        expires = self._clock() + min(record.identity_ttl, longest)
        self._verdicts.put(key, RightsVerdict(ref(response), expires, record.access_epoch), len(key[1]))

    def find(self, key: HeadKey, now: float) -> tuple[CachedResponse, KnownLogin] | None:
        """Return the response to a head with a known login, and the login; None without a good one."""
        found = self.logins.find(*key, now)
        if found is None:
            return None
        shared, login = found
        verdict = self._verdicts.get(shared)
        if verdict is None or now >= verdict.expires or login.access_epoch != verdict.access_epoch:
            return None
        response = verdict.response()
        if response is None or now >= response.expires or self._is_outdated(response):
            return None
        if login.access_epoch != response.access_epoch:
            return None
        if not login.hashed:
            expires = min(verdict.expires, login.expires)
            # The epoch is that of the login: one object for all heads of a response stays in the caches.
            self._note_head(key, KnownHead(verdict.response, login, expires, response.access_epoch))
        return response, login

    def drop_head(self, key: HeadKey) -> bool:
        """Forget a head; return whether it was known."""
        known = self.heads.pop(key, None)
        self._size -= 0 if known is None else _cost(key)
        return known is not None

    def close(self) -> None:
        """Forget everything, and know nothing any more."""
        self.logins.close()
        self._verdicts = LRUCache(0)
        self._forget_heads()

    def _note_head(self, key: HeadKey, head: KnownHead) -> None:
        """Note what a head gets; without room all are forgotten, and found again by their logins."""
        if key not in self.heads:
            if self._size + _cost(key) > self._limit:
                self._forget_heads()
            self._size += _cost(key)
        self.heads[key] = head

    def _forget_heads(self) -> None:
        self.heads.clear()
        self._size = 0


def _cost(key: HeadKey) -> int:
    return len(key[1]) + OVERHEAD


def name_of(
    key: SharedKey, record: RequestRecord, parts: tuple[bytes, bytes], *, audited: bool
) -> SharedName:
    """Return the name of a response. `parts`: its bytes before and behind the date.

    Content is the same for all clients of a scope that get it. A list has what its client may know of: only
    the looks of clients with the same rights tell whether it is still right.
    """
    peers, head = key
    kind = None if record.target is None else record.target.kind
    shown = record.fields().items()
    fields = [(name, str(value)) for name, value in shown if name not in UNNAMED]
    recorded = repr((fields, record.rule if audited else None, bool(record.identity.names)))
    return SharedName(peers.scope if kind in CONTENT else peers, head, parts, recorded)
