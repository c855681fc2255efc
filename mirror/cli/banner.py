"""What `serve` prints when it is ready: where it serves, and what clients put into their configuration."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mirror import __version__

if TYPE_CHECKING:
    from mirror.config.schema import Config


def banner(config: "Config", addresses: Sequence[str]) -> str:
    """What is served where, and what to put into Docker's configuration."""
    address, encrypted = reachable(addresses[0]), config.server.tls_certificate is not None
    base = f"{'https' if encrypted else 'http'}://{address}"
    width = max(len(each.name) for each in config.upstreams)
    lines = [
        f"registry-mirror {__version__} serves on {', '.join(addresses)}, cache in {config.cache.dir}",
        "",
    ]
    places = [base, *(f"{base}/v2/{each.name}/" for each in config.upstreams[1:])]
    broad = max(map(len, places))
    for upstream, place in zip(config.upstreams, places, strict=True):
        lines.append(f"  {upstream.name:<{width}}  at {place:<{broad}}  from {upstream.url}")
    if config.server.offline:
        lines += ["", "Offline: none of them is asked for anything; what is not cached is not found."]
    lines += [
        "",
        "For Docker, in /etc/docker/daemon.json (then: systemctl reload docker):",
        "",
        *_for_docker(address, encrypted=encrypted),
        "",
    ]
    if config.upstreams[0].name != "docker.io":
        lines += ["Docker uses a mirror for docker.io only, and here the default is another upstream.", ""]
    guarded = [each.name for each in config.upstreams if each.logins()]
    if guarded:
        lines += [
            f"Note: what the accounts at {', '.join(guarded)} can read, everybody who reaches us can.",
            "",
        ]
    return "\n".join(lines)


def _for_docker(address: str, *, encrypted: bool) -> list[str]:
    if not encrypted:
        return [f'  "registry-mirrors": ["http://{address}"],', f'  "insecure-registries": ["{address}"]']
    return [
        f'  "registry-mirrors": ["https://{address}"]',
        "",
        "Use a name or an address that the certificate has. If it was signed by nobody clients know, the",
        f"signer's certificate goes into /etc/docker/certs.d/{address}/ca.crt on each of them.",
    ]


def reachable(address: str) -> str:
    """An address to show: one that is bound to everything is reached here by the loopback one."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]") else address  # noqa: S104  # compared, not bound
