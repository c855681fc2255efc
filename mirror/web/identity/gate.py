"""Identification and rules as the pipeline asks them, and their replacement at a reload.

A client may hold its connection for as long as it likes. What it asks for next is not its right only because
the connection is older than the rules: a worker that retires takes up the rules of its successors.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from mirror.config.loader import ConfigError
from mirror.config.schema import Config
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Target
from mirror.service.service import Service
from mirror.util.log import get_logger
from mirror.util.tasks import Tasks
from mirror.util.tracebacks import reason_of
from mirror.web.access_control import AccessControl, AccessDenied
from mirror.web.identity.challenge import is_token_request
from mirror.web.identity.configured import configured
from mirror.web.identity.identification import Identification
from mirror.web.private.gate import PrivateGate
from mirror.web.request_log import RequestRecord

if TYPE_CHECKING:
    from mirror.web.identity.token_service import TokenService

log = get_logger(__name__)

# Turns of the event loop after which a signal that has come is handled, at most.
SIGNAL_TURNS = 3


class Gate:
    """Identification, rules and token service of one worker."""

    def __init__(self, service: Service, config: Config) -> None:
        self._service = service
        private = PrivateGate(service.cache.private)
        self.access = AccessControl(config.policy(), config.server.proxies(), private)
        self.identification, self._tokens = configured(config, service)
        self._epoch = service.access_epoch()
        self._adopting: asyncio.Task[None] | None = None  # requests wait for it
        self._replaced: list[Identification] = []
        self._tasks = Tasks()

    async def start(self) -> None:
        """Read what identification needs. Raises OSError or ValueError."""
        await self.identification.start()

    async def close(self) -> None:
        """End what runs in the background."""
        await self._tasks.close()
        for each in (self.identification, *self._replaced):
            await each.close()

    async def identify(self, record: RequestRecord) -> None:
        """Note in the record who sends the request. Raises RegistryError."""
        await self._await_rules(record)
        await self.identification.identify(record)

    def token_service(self, record: RequestRecord) -> "TokenService | None":
        """Return the service that the request is for; None for a request of the registry API."""
        return self._tokens if record.may_log_in and is_token_request(record.request) else None

    def authorise(self, record: RequestRecord, target: Target) -> None:
        """Raise AccessDenied if the client may not have what it asks for, LoginRequired if it must log in."""
        self.identification.insist(record, target)
        self.access.authorise(record, target)

    def instead_of(self, denied: AccessDenied, record: RequestRecord, target: Target) -> RegistryError:
        """Return what the client gets in place of a refusal: a challenge, if a login may help."""
        return self.identification.instead_of(denied, record, target)

    def adopt_rules(self, load: Callable[[], Config]) -> None:
        """Judge by the rules and users of the configuration that `load` returns, from the next request on."""
        if self._tasks.closed:  # a reload that came after the last request
            return
        self._adopting = self._tasks.spawn(self._adopt_rules(load), name="rules")

    async def _adopt_rules(self, load: Callable[[], Config]) -> None:
        try:
            config = await asyncio.to_thread(load)
            identification, tokens = configured(config, self._service)
            await identification.start()
        except (ConfigError, OSError, ValueError) as error:
            log.error("rules not re-read: open connections end by the old ones", reason=reason_of(error))
            return
        self._service.cache.private.adopt(
            {each.name: each.private if each.keeps_private else "everybody" for each in config.upstreams}
        )
        self.access.adopt(config.policy(), config.server.proxies())
        self._replaced.append(self.identification)
        self.identification, self._tokens = identification, tokens

    async def _await_rules(self, record: RequestRecord) -> None:
        """Wait until the rules are those of the last reload, if one has been announced to this worker.

        The parent changes the access epoch behind its signal, which asyncio handles a turn of the loop later
        than a request that came with it.
        """
        if record.access_epoch != self._epoch:
            for _ in range(SIGNAL_TURNS):
                await asyncio.sleep(0)
            self._epoch = record.access_epoch  # not sooner: other requests of these turns wait as well
        if self._adopting is not None:
            await asyncio.shield(self._adopting)
