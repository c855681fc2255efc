"""The options of `[[limit]]`: bounds of clients."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from mirror.access.limits import Bounds, Limit, LimitTable, Per
from mirror.access.rules import parse_network
from mirror.config.access import Identities
from mirror.config.types import Networks, Size, format_size
from mirror.config.validation import After, Beside, Doc, Settings

Count = Annotated[int, Meta(ge=1)]
Rate = Annotated[float, Meta(gt=0)]

# The slowest lines have more; less is a mistake in the unit.
LEAST_BANDWIDTH = 16 * 1024

# A blob of this size has any image: configs, and layers of one file.
LEAST_BLOB = 1024 * 1024

BOUNDS = ("connections", "requests", "bandwidth", "upstream_per_day", "max_blob", "fills")


def _check_bandwidth(value: int | None) -> int | None:
    if value is not None and value < LEAST_BANDWIDTH:
        raise ValueError(
            f"must be at least {format_size(LEAST_BANDWIDTH)} per second, not {format_size(value)}: "
            "slower clients give up"
        )
    return value


def _check_blob(value: int | None) -> int | None:
    if value is not None and value < LEAST_BLOB:
        raise ValueError(f"must be at least {format_size(LEAST_BLOB)}, not {format_size(value)}")
    return value


def _check_some(value: object, valid: Mapping[str, Any]) -> object:
    if value is None and all(valid.get(each) is None for each in BOUNDS):
        raise ValueError(
            f"or another bound is needed ({', '.join(BOUNDS)}): a limit without one does nothing"
        )
    return value


class LimitSettings(Settings, frozen=True, kw_only=True):
    """Limits of clients: what each of them, or all together, may use of this mirror."""

    name: Annotated[
        str, Doc("Name of the limit, in the log, in messages and in metrics.", examples=["guests"])
    ]
    per: Annotated[
        Literal["client", "identity", "network", "all"],
        Doc(
            'Who has the bounds: "client" is each address (of IPv6 each /64), "identity" each user, token or '
            'certificate (and each address without one), "network" each of `networks` together, "all" '
            "everybody together.",
            examples=["all"],
        ),
    ] = "client"
    identities: Annotated[
        Identities,
        Doc(
            "Patterns of what clients have proven to be, as in [[rule]]; without the key the limit is about "
            "everybody.",
            examples=[["user:*", "group:ci"]],
        ),
    ] = ()
    networks: Annotated[
        Networks,
        Doc(
            "Addresses and networks of the clients that have this limit.",
            examples=[["10.0.0.0/8", "fd00::/8"]],
        ),
    ] = ()
    connections: Annotated[Count | None, Doc("Most connections at a time.", examples=[200])] = None
    requests: Annotated[
        Rate | None,
        Doc(
            "Requests per second. Further ones wait, for 10 s at the most, and only then get 429.",
            examples=[50],
        ),
    ] = None
    burst: Annotated[
        int,
        Meta(ge=1, le=1_000_000),
        Doc("Requests that come at once without a wait, before `requests` counts.", examples=[500]),
    ] = 200
    bandwidth: Annotated[
        Size | None,
        After(_check_bandwidth),
        Doc(
            "Bytes per second to clients, at least 16KiB; also written as bits, such as 100Mbit. Those who "
            "share it get equal parts.",
            examples=["100Mbit", "12MB"],
        ),
    ] = None
    upstream_per_day: Annotated[
        Size | None,
        Doc(
            "Bytes that are fetched from upstreams for them in a day of UTC. What is cached costs nothing.",
            examples=["200GiB"],
        ),
    ] = None
    max_blob: Annotated[
        Size | None,
        After(_check_blob),
        Doc(
            "Size of the largest blob, at least 1MiB. Images with a larger one are refused.",
            examples=["10GiB"],
        ),
    ] = None
    fills: Annotated[
        Count | None,
        Beside(_check_some),
        Doc("Most downloads from upstreams at a time; further ones wait for their turn.", examples=[16]),
    ] = None


def limits_of(limits: Sequence[LimitSettings]) -> LimitTable:
    """Return the limits that the options describe."""
    return LimitTable([_limit(number, each) for number, each in enumerate(limits, 1)])


def _limit(number: int, settings: LimitSettings) -> Limit:
    bounds = Bounds(
        settings.connections,
        settings.requests,
        settings.burst,
        settings.bandwidth,
        settings.upstream_per_day,
        settings.max_blob,
        settings.fills,
    )
    networks = tuple(map(parse_network, settings.networks))
    return Limit(number, settings.name, Per(settings.per), bounds, settings.identities, networks)
