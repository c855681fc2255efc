"""JSON Web Tokens of configured issuers as credentials: Bearer, or the password of any user of Basic.

A token by an issuer that is not configured is none of this kind: dockerd shows Docker Hub's to a mirror
unasked. The client of a refused one gets a plain 401, and the log the reason. A signature is verified in a
thread: it costs a tenth of a millisecond, and half of one with a large key. Verdicts are remembered under the
token's hash, so that a pull costs one proof; they end with the token and with the issuer's keys.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from functools import partial

from msgspec import Struct

from mirror.access.jwt.claims import principals_of
from mirror.access.jwt.compact import JwtRefused, UnprovenJwt, looks_like_jwt, parse
from mirror.access.jwt.keys import KeySet
from mirror.access.jwt.verify import Expected, algorithm_of, key_id_of, verify
from mirror.config.identities.issuers import IssuerSettings
from mirror.metrics.metrics import Metrics
from mirror.upstream.issuers.key_requests import KeyRequests
from mirror.upstream.issuers.key_source import NOTHING, RETRY_SECONDS, KeySource, file_reader
from mirror.util.log import get_logger
from mirror.util.lru import LRUCache
from mirror.util.single_flight import SingleFlight
from mirror.util.tasks import Tasks
from mirror.web.identity.credentials import (
    BEARER,
    Authenticator,
    Claim,
    Credentials,
    NotVerified,
    WrongCredentials,
)

log = get_logger(__name__)

# Room for remembered verdicts, in bytes: ten thousand tokens.
REMEMBERED_BYTES = 8 * 1024 * 1024

# Signatures that are verified or wait for it, at most; beyond that the client with the most is refused,
# with this Retry-After in seconds.
WAITING = 64
BUSY_SECONDS = 1


# What the client of a refused token is told.
NOT_GOOD = "the token is not good for this mirror: the mirror's log has the reason"


# Beginning of the handles of such tokens.
KIND = "jwt"

# Longest list of principals in a token that stands for a login, in characters: it is sent with each request.
HANDLE_LENGTH = 2000


class JwtVerdict(Struct, frozen=True):
    """The outcome of a proof with some keys: principals, or why there are none. `until`: when it ends."""

    keys: KeySet
    until: float
    names: tuple[str, ...] = ()
    reason: str = ""


class Issuer:
    """One configured issuer: what its tokens must be, and where its keys come from."""

    def __init__(self, settings: IssuerSettings, requests: KeyRequests, tasks: Tasks) -> None:
        self.name = settings.name
        self.expected = Expected(settings.issuer, settings.audience)
        self.claims = settings.claims
        self._requests = requests
        if settings.jwks_file is None:
            self.source = KeySource(self.name, requests.fetch, tasks)
        else:
            self.source = KeySource(self.name, file_reader(settings.jwks_file), tasks, refresh=RETRY_SECONDS)

    async def close(self) -> None:
        """End the connections."""
        await self._requests.close()


class JwtAuthenticator(Authenticator):
    """The configured issuers. `clock`: seconds since the epoch."""

    def __init__(
        self,
        issuers: Iterable[IssuerSettings],
        metrics: Metrics,
        *,
        offline: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tasks = Tasks()
        self._clock = clock
        self._issuers = [
            Issuer(each, KeyRequests(each, metrics, offline=offline), self._tasks) for each in issuers
        ]
        self._verdicts: LRUCache[tuple[str, bytes], JwtVerdict] = LRUCache(REMEMBERED_BYTES)
        self._proofs: SingleFlight[tuple[str, bytes, int], JwtVerdict] = SingleFlight(
            self._tasks, WAITING, refusal=_busy
        )

    async def claim(self, shown: Credentials) -> Claim | None:
        """Return what a token of an issuer proves. Raises WrongCredentials."""
        password = "" if shown.login is None else shown.login.password
        text = shown.value if shown.scheme == BEARER else password.strip()
        if not looks_like_jwt(text):
            return None
        try:
            token = parse(text)
        except JwtRefused as refused:
            log.info("token of an issuer refused", reason=str(refused))
            raise WrongCredentials(NOT_GOOD, ours=True) from None
        verdict = None
        for issuer in (each for each in self._issuers if each.expected.issuer == token.claims.get("iss")):
            verdict = await self._judge(issuer, token)
            if verdict.names:
                seconds = max(0.0, verdict.until - self._clock())
                return Claim(verdict.names, seconds, _handle(issuer.name, verdict))
        if verdict is None:
            log.debug("token of an issuer that is not configured ignored")
            return None
        raise WrongCredentials(NOT_GOOD, ours=True)

    async def recall(self, handle: str) -> Claim | None:
        """Return the claim of a token that was proven for a login; None if it has expired since then.

        The handle has the principals: every worker can read it, and the signature around it proves it.
        """
        kind, _, rest = handle.partition(":")
        name, _, rest = rest.partition(":")
        until, _, names = rest.partition(":")
        if kind != KIND or name not in (each.name for each in self._issuers):
            return None
        seconds = float(until) - self._clock()
        return None if seconds <= 0 else Claim(tuple(json.loads(names)), seconds, handle)

    async def close(self) -> None:
        """End what runs, and the connections."""
        await self._tasks.close()
        await asyncio.gather(*(each.close() for each in self._issuers))

    async def _judge(self, issuer: Issuer, token: UnprovenJwt) -> JwtVerdict:
        """Return the verdict on a token that says it is by this issuer."""
        mark, keys = (issuer.name, hashlib.sha256(token.text.encode()).digest()), NOTHING
        try:
            algorithm_of(token)  # a token that is refused in any case causes no request
            keys = await issuer.source.keys(key_id_of(token))
            known = self._verdicts.get(mark)
            if known is not None and known.keys is keys and self._clock() < known.until:
                return known
            prove = partial(asyncio.to_thread, self._prove, issuer, token, keys)
            verdict = await self._proofs.do((*mark, id(keys)), prove)
        except JwtRefused as refused:
            verdict = JwtVerdict(keys, self._clock() + RETRY_SECONDS, reason=str(refused))
            log.info("token of an issuer refused", issuer=issuer.name, reason=verdict.reason)
        self._verdicts.put(mark, verdict, sum(map(len, verdict.names)) + len(verdict.reason))
        return verdict

    def _prove(self, issuer: Issuer, token: UnprovenJwt, keys: KeySet) -> JwtVerdict:
        expires = verify(token, keys, issuer.expected, self._clock())
        names = principals_of(issuer.name, issuer.claims, token.claims)
        if not names:
            raise JwtRefused("it has neither a subject nor a claim that is asked for")
        return JwtVerdict(keys, expires, names)


def _busy(_group: str) -> NotVerified:
    return NotVerified("too many tokens are being verified: try again in a moment", BUSY_SECONDS)


def _handle(name: str, verdict: JwtVerdict) -> str:
    """Return the text that stands for a proven token: issuer, end, principals, the shortest ones first."""
    kept: list[str] = []
    for each in sorted(verdict.names, key=len):
        if len(json.dumps([*kept, each])) <= HANDLE_LENGTH:
            kept.append(each)
    return f"{KIND}:{name}:{verdict.until}:{json.dumps(sorted(kept))}"
