"""The `serve` command: its flags, and the start of the server."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mirror.cli.common import fail, loaded, require_owner
from mirror.cli.output import tell

if TYPE_CHECKING:
    from mirror.config.schema import Config
    from mirror.store.cache_dir import CacheDirectory


class Flags(NamedTuple):
    """The flags of `serve`, as the command line has them."""

    listen: list[str]
    upstream: list[str]
    cache_dir: str | None = None
    config: str | None = None
    offline: bool = False

    def options(self) -> dict[str, object]:
        """Return the flags that set options, as `load` takes them."""
        return {
            "listen": self.listen,
            "cache_dir": self.cache_dir,
            "upstreams": self.upstream,
            "offline": self.offline,
        }


def parse_flags(arguments: Sequence[str]) -> Flags | None:
    """Return the flags, or None if typer has to answer: with help, or about an argument that is wrong."""
    lists: dict[str, list[str]] = {"--listen": [], "--upstream": []}
    texts: dict[str, str | None] = {"--cache-dir": None, "--config": None}
    offline, rest = False, iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument == "--offline":
            offline = True
        elif name not in {*lists, *texts} or (given := value if equals else next(rest, None)) is None:
            return None
        elif name in lists:
            lists[name].append(given)
        else:
            texts[name] = given
    return Flags(
        lists["--listen"], lists["--upstream"], texts["--cache-dir"], texts["--config"], offline=offline
    )


def run_server(flags: Flags) -> int:
    """Serve until a signal ends the mirror; return the exit status."""
    wanted = loaded(flags.config, flags.options()).config
    from mirror.config.loader import environment, load
    from mirror.server.run import run
    from mirror.util.log import configure_later
    from mirror.util.tracebacks import reason_of

    configure_later(wanted.log, sys.stderr)
    require_owner(wanted.cache.dir, 1, "run the mirror as that user, or choose another folder: --cache-dir")
    new = not os.path.isdir(wanted.cache.dir / "books")  # no error if it cannot be reached
    try:
        return run(
            wanted,
            lambda: load(flags.config, environment(), flags.options()).config,
            partial(_announce, new=new),
        )
    except OSError as error:
        fail(reason_of(error), 1)


def _announce(
    config: "Config", addresses: Sequence[str], folder: "CacheDirectory | None" = None, *, new: bool
) -> None:
    from mirror.cli.banner import banner, room
    from mirror.system.addresses import network_addresses

    tell(banner(config, addresses, network_addresses(), room(config, folder), new=new))
