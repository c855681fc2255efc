"""Entries of activity, as workers tell each other and as the API shows them."""

from typing import Literal

from msgspec import Struct, field

# What a running request is called whose answer is not decided yet.
WAITING = "waiting"

# Samples of the traffic that a worker keeps: five minutes.
MOST_SAMPLES = 150


class RunningRequest(Struct, frozen=True, kw_only=True):
    """A request that runs. `began`: in seconds since the epoch; `rate`: bytes a second.

    `outcome`: hit, join, miss, stale, passed; waiting before the answer is decided. `length`: bytes of the
    whole body, None if they are not known. `why`: the reason of that outcome, where there is more to say.
    """

    id: str
    worker: int
    client: str
    identity: list[str]
    kind: str
    upstream: str | None
    repository: str | None
    reference: str | None
    digest: str | None
    outcome: str
    why: str | None
    began: float
    sent: int
    length: int | None
    rate: float


class EndedRequest(Struct, frozen=True, kw_only=True):
    """A request that has ended, or several alike that were answered from memory: `count`.

    `ended`: in seconds since the epoch; `seconds`: that it took, `bytes`: of the body, each.
    """

    id: str
    client: str
    identity: list[str]
    kind: str
    upstream: str | None
    repository: str | None
    reference: str | None
    outcome: str
    status: int
    why: str | None
    ended: float
    seconds: float
    bytes: int
    count: int = 1

    @property
    def name(self) -> str | None:
        """The repository with its upstream; None for a request that is about none."""
        return None if self.repository is None else f"{self.upstream}/{self.repository}"


class RunningDownload(Struct, frozen=True, kw_only=True):
    """A download from an upstream, a fill. `clients`: that wait for it. `size`: None before it is known.

    `queued`: it waits in the mirror's own queue; `prefetch`: no client has asked for it. `sources`: where the
    bytes come from now, with the number of connections to each; `rates`: bytes a second of each.
    """

    worker: int
    upstream: str
    repository: str
    digest: str
    received: int
    size: int | None
    rate: float
    clients: int
    queued: bool
    prefetch: bool
    sources: dict[str, int] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)


class AccountState(Struct, frozen=True, kw_only=True):
    """An account at an upstream, and its rate limit; None where the upstream has reported none lately.

    `window`: seconds in which `limit` requests are allowed. `renews`: the moment, in seconds since the epoch,
    by which all of them are allowed again if nothing more is asked; it may be sooner. `refused`: its password
    was. `source`: whom the upstream counts.
    """

    account: str
    refused: bool
    budget: str
    limit: int | None
    remaining: int | None
    window: int | None
    source: str | None
    renews: float | None = None


class SourceState(Struct, frozen=True, kw_only=True):
    """A source of an upstream. `latency`: seconds to the first byte; `speed`: bytes a second of a connection.

    `breaker`: of its circuit breaker.
    """

    source: str
    breaker: str
    latency: float
    speed: float
    connections: int
    accounts: list[AccountState]


class UpstreamState(Struct, frozen=True, kw_only=True):
    """An upstream with its sources, the registry itself first."""

    name: str
    offline: bool
    sources: list[SourceState]


class TrafficSample(Struct, frozen=True, array_like=True):
    """Bytes that came from upstreams and that went to clients so far; `moment`: seconds since the epoch."""

    moment: float
    received: int
    sent: int


class WorkerActivity(Struct, frozen=True, kw_only=True):
    """The activity of one worker."""

    worker: int
    requests: list[RunningRequest]
    downloads: list[RunningDownload]
    recent: list[EndedRequest]
    traffic: list[TrafficSample] = field(default_factory=list)
    upstreams: list[UpstreamState] = field(default_factory=list)


Level = Literal["debug", "info", "warning", "error", "critical"]


class LogLine(Struct, frozen=True, kw_only=True):
    """A line of the log. `moment`: its time stamp; `component`: the module that wrote it."""

    moment: str
    worker: int
    level: str
    component: str
    event: str
    fields: dict[str, str]


class LogQuestion(Struct, frozen=True):
    """A question for lines: of this level or a graver one, with texts in the component and in the line."""

    level: Level = "debug"
    component: str = ""
    text: str = ""
    limit: int = 200


class ActivityQuestion(Struct, frozen=True):
    """A question to a worker. `recent`: the most ended requests to tell; of `client` alone if given.

    `log`: lines of the log are wanted, and nothing else. `samples`: the most samples of the traffic.
    """

    recent: int = 0
    client: str | None = None
    log: LogQuestion | None = None
    samples: int = MOST_SAMPLES
