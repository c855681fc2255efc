"""The options of the pages, and of the API behind them."""

from typing import Annotated

from mirror.config.server import require_addresses
from mirror.config.types import Strings
from mirror.config.validation import After, Doc, Settings
from mirror.oci.registries import canonical_host

LOOPBACK = "127.0.0.1"


def _complete(value: tuple[str, ...]) -> tuple[str, ...]:
    """Complete a port alone to loopback: what these pages tell is not for everybody."""
    return require_addresses(
        tuple(f"{LOOPBACK}:{each.removeprefix(':')}" if _is_port(each) else each for each in value)
    )


def _is_port(text: str) -> bool:
    return text.removeprefix(":").isdecimal()


def _check_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no host; return each in its one spelling."""
    hosts = [(each, canonical_host(each)) for each in value]
    wrong = next((each for each, host in hosts if host is None), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r:.80} is no host, for instance mirror.lan")
    return tuple(host for _, host in hosts if host is not None)


class AdminSettings(Settings, frozen=True, kw_only=True):
    """Pages for people who look after the mirror, with an API, on addresses of their own."""

    listen: Annotated[
        Strings,
        After(_complete),
        Doc(
            "Addresses of the pages and of their API, each as HOST:PORT; a port alone is that of 127.0.0.1. "
            "An address that is taken is logged, and stops nothing. With `server.tls_certificate` an address "
            "that is not loopback is https://. [pages.md](pages.md) says who may see and do what.",
            examples=[["127.0.0.1:5002"]],
        ),
    ] = ()
    hosts: Annotated[
        Strings,
        After(_check_hosts),
        Doc(
            "Names by which people open the pages, besides addresses, localhost and the name of this "
            "machine. Requests for other names are refused: a page elsewhere could be made to read these.",
            examples=[["mirror.lan"]],
        ),
    ] = ()
