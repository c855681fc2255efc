"""Shares of the processor: a client that has used much of it begins its further requests later.

The event loop runs whatever is ready. A client that asks without a pause, over a few connections, keeps the
loop busy, and a download of another client waits for it at each of its steps.

1. Nothing of this happens while the process is not saturated, nor while one client alone has requests.
2. Each client has a time at which its next request begins. A request puts that off by PARTS times what it
   takes: first by what the client's requests take on average, and then by the time of its own steps and of
   the look-ups that it has caused. So one client has a PARTS-th of the loop's time for these.
3. Not more than MOST_CHARGED is put to the account of one request: what sends a large blob is no abuse.
4. No request waits for longer than LONGEST_WAIT.

A response from the response cache has no share, and never waits.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mirror.util.callbacks import never, zero
from mirror.util.fairness.client import current_client
from mirror.util.fairness.measured import run_measured

V = TypeVar("V")

# Parts of the processor's time, of which a client has one. What is charged is less than what requests cost:
# with six, a client that asks without a pause took a quarter to a half of the processor.
PARTS = 6

# Charge for what is not measured of a request, in seconds: accepting, parsing, sending the head, closing.
UNMEASURED = 0.0005

# The most that is charged for one request, and the longest wait of one, in seconds.
MOST_CHARGED, LONGEST_WAIT = 0.02, 1.0

# Estimate of a client's first request, in seconds, and the weight of each request in the client's average.
FIRST_ESTIMATE, WEIGHT = 0.001, 1 / 8

# Time, in seconds, to copy a byte of a body to the kernel.
BYTE_SECONDS = 1e-9

# Seconds for which the process counts as saturated after a measurement: one that is paced is less busy, and
# would be let go at once. Seconds for which a client counts as active after its last request.
HOLD_SECONDS, ACTIVE_SECONDS = 2.0, 1.0

# Time between two looks at load and clients, in seconds.
LOOK_SECONDS = 0.05

# Clients that are remembered, besides those with a request that runs.
MOST_CLIENTS = 256


class ClientAccount:
    """Account of one client. Times are by the clock of the shares."""

    __slots__ = ("average", "last", "next_start", "running")

    def __init__(self) -> None:
        self.running = 0
        self.last = 0.0
        self.next_start = 0.0
        self.average = FIRST_ESTIMATE


class RequestShare:
    """Share of one request. `delay`: seconds until the request may begin; `measured`: whether time counts."""

    __slots__ = ("_account", "_shares", "delay", "measured", "seconds")

    def __init__(
        self, shares: "ProcessorShares", account: ClientAccount, delay: float, *, measured: bool
    ) -> None:
        self._shares = shares
        self._account = account
        self.delay = delay
        self.measured = measured
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Charge time to the client, also after the request's end: a look-up may go on."""
        charged = min(seconds, MOST_CHARGED - self.seconds)
        if charged > 0:
            self.seconds += charged
            self._account.next_start += PARTS * charged

    def end(self, size: int = 0) -> None:
        """End the request, which had a body of `size` bytes in memory."""
        account = self._account
        if self.measured:
            self.add(UNMEASURED + BYTE_SECONDS * size)
            account.next_start -= PARTS * account.average
            account.average += WEIGHT * (self.seconds - account.average)
        self._shares.ended(account)


class ProcessorShares:
    """The accounts of one process. `saturated`: whether the process can hardly do more."""

    def __init__(
        self, saturated: Callable[[], bool] = never, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.saturated = saturated
        self._clock = clock
        self._accounts: dict[str, ClientAccount] = {}  # longest inactive first
        self._looked = self._saturated_until = float("-inf")
        self._contended = False

    def begin(self, client: str) -> RequestShare:
        """Return the share of a request that has come; call its `end`."""
        now = self._clock()
        account = self._accounts.pop(client, None) or ClientAccount()
        self._accounts[client] = account
        account.running += 1
        account.last = now
        self._look(now)
        if not self._contended:
            return RequestShare(self, account, 0.0, measured=False)
        start = min(max(now, account.next_start), now + LONGEST_WAIT)
        account.next_start = start + PARTS * account.average
        return RequestShare(self, account, start - now, measured=True)

    async def run(self, work: Callable[[], Awaitable[V]], size: Callable[[], int] = zero) -> V:
        """Return the result of a request's work, which begins when the share of its client allows it.

        `size` returns the bytes of its body in memory, when it is done.
        """
        share = self.begin(current_client())
        try:
            if share.delay:
                await asyncio.sleep(share.delay)
            return await run_measured(work, share)
        finally:
            share.end(size())

    def ended(self, account: ClientAccount) -> None:
        """Note that a request of a client has ended."""
        account.running -= 1
        account.last = self._clock()

    def _look(self, now: float) -> None:
        """Find out whether clients compete for the processor."""
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._forget_inactive()
        if self.saturated():
            self._saturated_until = now + HOLD_SECONDS
        since = now - ACTIVE_SECONDS
        active = sum(1 for each in self._accounts.values() if each.running or each.last >= since)
        self._contended = active > 1 and now < self._saturated_until

    def _forget_inactive(self) -> None:
        surplus = len(self._accounts) - MOST_CLIENTS
        for client in [each for each, account in self._accounts.items() if not account.running][
            : max(0, surplus)
        ]:
            del self._accounts[client]
