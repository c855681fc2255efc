"""DNS for one upstream: host names from redirects must not resolve to private addresses.

The check is where a connection gets its addresses from, so that a name cannot resolve to a public address
for the check and to a private one for the connection (DNS rebinding).
"""

import asyncio
import socket
from collections.abc import Callable, Collection

from aiohttp.abc import AbstractResolver, ResolveResult

from mirror.upstream.http.addresses import is_private_address
from mirror.util.callbacks import never


class PrivateAddress(OSError):
    """A host name that came from the network, not from the configuration, resolves to private addresses."""


class GuardedResolver(AbstractResolver):
    """Resolves `upstream` and `trusted` hosts to all addresses, other hosts to public addresses only.

    If the upstream itself is in a private network, its stores may be too: while `private` returns true, all
    addresses are allowed. What the upstream's own name resolves to decides nothing: DNS proves nothing.
    """

    def __init__(
        self,
        inner: AbstractResolver,
        upstream: str,
        trusted: Collection[str] = (),
        *,
        private: Callable[[], bool] = never,
        timeout: float = 10.0,
    ) -> None:
        self._private = private
        self._inner = inner
        self._upstream = upstream
        self._trusted = frozenset(trusted)
        self._timeout = timeout

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        async with asyncio.timeout(self._timeout):
            results = await self._inner.resolve(host, port, family)
        if host == self._upstream or host in self._trusted or self._private():
            return results
        public = [result for result in results if not is_private_address(result["host"])]
        if not public:
            raise PrivateAddress(
                f"{host} resolves to private addresses; private_redirects = true would allow it"
            )
        return public

    async def close(self) -> None:
        await self._inner.close()
