"""The login of one account: its credentials of now, refreshed before they end.

1. Credentials are used as long as they are fresh. Then the first request starts a refresh in the background,
   and all go on with the old ones. Only requests that find none yet, or expired ones, wait, once.
2. However many wait, the source is asked once.
3. A failed refresh keeps the old credentials until the registry refuses them, and is repeated after RETRY.
4. A registry that refuses credentials makes the source be asked at once, but not more often than RETRY.
"""

import asyncio
import math
from collections.abc import Callable

from mirror.credentials.credential import Answer, Credential, CredentialError, LoginSource
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks

log = get_logger(__name__)

# Seconds between two attempts at a source that fails, or whose credentials are refused.
RETRY = 30.0
# Share of the lifetime of credentials after which they are refreshed.
REFRESHED_AT = 0.75


class Login:
    """Credentials of one account at `upstream`; `held` are those of now."""

    def __init__(self, upstream: str, source: LoginSource, tasks: Tasks, clock: Callable[[], float]) -> None:
        self.source = source
        self.held: Credential | None = None
        self.failure: CredentialError | None = None
        self.note = ""
        self._former: Credential | None = None
        self._upstream = upstream
        self._tasks = tasks
        self._clock = clock
        self._answered = False
        self._asked_at = self._refresh_at = self._expires_at = -math.inf
        self._running: asyncio.Task[None] | None = None
        if source.initial is not None:
            self._accept(source.initial)

    @property
    def absent(self) -> bool:
        """True if the source has no credentials, or has never been able to answer."""
        return self.held is None and (self._answered or self.failure is not None)

    async def get(self) -> Credential | None:
        """Return the credentials to use now, None if the source has none. Raises CredentialError."""
        now = self._clock()
        if now >= self._refresh_at:
            refresh = self._refresh()
            if self.failure is None and (not self._answered or now >= self._expires_at):
                await asyncio.shield(refresh)
        if not self._answered and self.failure is not None:
            raise CredentialError(str(self.failure))
        return self.held

    async def renew(self, refused: Credential) -> bool:
        """Ask the source again, because a registry refused `refused`; return whether there are others.

        A refresh that runs already may bring them, and is waited for.
        """
        due = self._running is not None or self._clock() >= self._asked_at + RETRY
        if due and refused.same_login(self.held):
            await asyncio.shield(self._refresh())
        return self.held is not None and not refused.same_login(self.held)

    def secrets(self) -> list[str]:
        """Return what must not be shown: the secrets of now and of before, plain and as they are sent."""
        known = [each for each in (self.held, self._former) if each is not None]
        sent = [(each.basic or "").removeprefix("Basic ") for each in known]
        return [*filter(None, (*(each.secret for each in known), *sent))]

    def _refresh(self) -> "asyncio.Task[None]":
        """Return the running refresh, or start one."""
        if self._running is None:
            self._running = self._tasks.spawn(self._ask(), name=f"login {self._upstream} {self.source.name}")
            self._running.add_done_callback(self._forget)
        return self._running

    def _forget(self, _: object) -> None:
        self._running = None

    async def _ask(self) -> None:
        self._asked_at = self._clock()
        try:
            answer = await self.source.fetch()
            if answer.doubtful and self.held is not None:
                raise CredentialError(answer.note)
        except CredentialError as error:
            self._refresh_at = self._clock() + RETRY
            if self.failure is None:
                kept = "the old ones are used" if self.held is not None else "there are none"
                self._warn("credentials not refreshed", reason=str(error), credentials=kept)
            self.failure = error
        else:
            if self.failure is not None:
                log.info("credentials refreshed again", upstream=self._upstream, source=self.source.label)
            self._accept(answer)

    def _accept(self, answer: Answer) -> None:
        now = self._clock()
        self._answered, self.failure = True, None
        if self.held is not None and not self.held.same_login(answer.credential):
            self._former = self.held
        self.held = answer.credential
        self._expires_at = now + answer.lifetime
        self._refresh_at = now + min(answer.fresh, answer.lifetime * REFRESHED_AT)
        if answer.note and answer.note != self.note:
            self._warn("no credentials" if self.held is None else "credentials unused", note=answer.note)
        self.note = answer.note
        log.debug("credentials read", upstream=self._upstream, source=self.source.label)

    def _warn(self, event: str, **values: object) -> None:
        log.warning(event, upstream=self._upstream, source=self.source.label, **values)
