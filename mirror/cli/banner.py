"""The banner of `serve`: the addresses, what people type into clients, and the room that there is."""

from collections.abc import Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from mirror import __version__
from mirror.cli.notes import config_notes, private_notes, secret_notes
from mirror.system.addresses import EVERY_ADDRESS, reachable

if TYPE_CHECKING:
    from mirror.config.schema import Config
    from mirror.store.cache_dir import CacheDirectory

# Other addresses of this machine than the first ones are those of bridges for containers, mostly.
SHOWN_ADDRESSES = 3


def banner(
    config: "Config", addresses: Sequence[str], own: Sequence[str], room: str = "", *, new: bool = False
) -> str:
    """Return the banner of a mirror on `addresses`.

    `own` are the addresses of this machine, `room` is a line about the disk. `new`: the cache is new.
    """
    scheme = "https" if config.server.tls_certificate is not None else "http"
    # Once each: ":5000" is bound to every IPv4 address and to every IPv6 address.
    others = list(dict.fromkeys(each for address in addresses for each in for_others(address, own)))
    address = (others or [reachable(addresses[0])])[0]
    cache = "new cache" if new else "cache"
    lines = [
        f"registry-mirror {__version__} serves on {', '.join(addresses)}, {cache} in {config.cache.dir}",
        *([room] if room else []),
        "",
        f"  on this machine:  {scheme}://{reachable(addresses[0])}",
        *(f"  on this network:  {scheme}://{each}" for each in others),
        "",
        *_pulls(config, address),
        "",
        *_docker(address, encrypted=scheme == "https"),
        "",
        "containerd, Podman, k3s and others: docs/clients.md",
        *(f"Pages that show what it does: {each}" for each in _pages(config)),
        "",
    ]
    notes = _notes(config, open_to_network=not all(map(_is_loopback, addresses)))
    return "\n".join([*lines, *(f"Note: {each}" for each in notes), *([""] if notes else [])])


def _pages(config: "Config") -> list[str]:
    """Return the addresses of the pages; the log tells of one that was taken."""
    encrypted = config.server.tls_certificate is not None
    return [
        f"{'https' if encrypted and not _is_loopback(each) else 'http'}://{reachable(each)}/"
        for each in config.admin.listen
    ]


def _pulls(config: "Config", address: str) -> list[str]:
    """Return what people type, for each upstream."""
    commands = [f"docker pull {address}/{each.name}/..." for each in config.upstreams]
    width = max(map(len, commands))
    return [
        f"  {command:<{width}}  from {'the cache' if config.server.offline else upstream.url}"
        for command, upstream in zip(commands, config.upstreams, strict=True)
    ]


def _docker(address: str, *, encrypted: bool) -> list[str]:
    """Return the lines for Docker's configuration."""
    lines = [
        "For Docker, in /etc/docker/daemon.json (then: systemctl reload docker), so that plain",
        "`docker pull alpine` comes here too:",
        "",
    ]
    if _is_loopback(address) and not encrypted:  # Docker trusts 127.0.0.0/8 and ::1 without TLS
        return [*lines, f'  "registry-mirrors": ["http://{address}"]']
    if not encrypted:
        return [
            *lines,
            f'  "registry-mirrors": ["http://{address}"],',
            f'  "insecure-registries": ["{address}"]',
        ]
    return [
        *lines,
        f'  "registry-mirrors": ["https://{address}"]',
        "",
        "Use a name or an address that the certificate has. Clients that do not know its signer need the",
        f"signer's certificate in /etc/docker/certs.d/{address}/ca.crt.",
    ]


def _notes(config: "Config", *, open_to_network: bool) -> list[str]:
    notes = config_notes(config)
    if config.rules or config.access.default == "deny":
        verb = {"allow": "allowed", "deny": "denied"}[config.access.default]
        notes.append(f"what none of the {len(config.rules)} access rules matches is {verb} (access.default).")
    elif open_to_network:
        notes.append("everybody on this network can pull through this mirror; limit that by a firewall.")
    if config.server.offline:
        notes.append("offline: no upstream is contacted, and what is not cached is not found.")
    return [*notes, *private_notes(config), *secret_notes(config)]


def room(config: "Config", folder: "CacheDirectory | None" = None) -> str:
    """Return a line about the disk: what is free, cached and allowed; "" if the cache cannot be read.

    `folder` is that of a mirror in this process; else the folder is opened here.
    """
    from mirror.store.errors import StoreError
    from mirror.store.health import StoreHealth
    from mirror.store.hosted.opened import open_cache

    with suppress(StoreError, OSError):
        if folder is not None:
            return _room_line(folder)
        health = StoreHealth(log_faults=False)  # the mirror has logged them
        with closing(open_cache(config.cache.dir, config.cache, health)) as opened:
            return _room_line(opened)
    return ""


def _room_line(folder: "CacheDirectory") -> str:
    from mirror.util.units import size

    disk, allowed = folder.evictor.room(), folder.evictor.size_limit()
    return f"{size(disk.free)} of {size(disk.total)} free, {size(disk.used)} cached, {size(allowed)} allowed"


def for_others(address: str, own: Sequence[str]) -> list[str]:
    """Return the addresses by which other machines reach `address`; none if it is on loopback."""
    host, _, port = address.rpartition(":")
    if host in EVERY_ADDRESS:
        return [f"{each}:{port}" for each in own[:SHOWN_ADDRESSES]]
    return [] if _is_loopback(address) else [address]


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0]
    return host.startswith("127.") or host in ("localhost", "[::1]")
