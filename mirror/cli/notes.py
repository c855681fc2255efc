"""Notes about a configuration that is valid, and perhaps not what its author meant."""

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mirror.config.schema import Config

# A quota below this size, in bytes, mostly lacks its unit.
SMALL_QUOTA = 1024**2

DOCKER_HUB = "docker.io"


def config_notes(config: "Config") -> list[str]:
    """Return a sentence for each doubtful value: the default upstream, and `cache.max_size`."""
    notes = []
    default = config.upstreams[0].name
    if default != DOCKER_HUB:
        notes.append(
            f"{default} is the default upstream, because the configuration names it first. Docker uses its "
            f"registry-mirrors for {DOCKER_HUB} only, so `docker pull alpine` bypasses this mirror. "
            f'To mirror {DOCKER_HUB} by default, write [[upstream]], name = "{DOCKER_HUB}" above the others.'
        )
    max_size = config.cache.max_size
    if not max_size.percent and 0 < max_size.bytes < SMALL_QUOTA:
        notes.append(
            f"cache.max_size is {max_size.bytes} bytes, less than most images: is its unit missing? "
            f"For instance {max_size.bytes}GiB."
        )
    return notes


def secret_notes(config: "Config") -> list[str]:
    """Return a sentence about a file of users that others on this machine can read."""
    path = config.access.htpasswd
    if path is None or not path.stat().st_mode & stat.S_IROTH:
        return []
    return [
        f"every user of this machine can read {path}, and guess at the passwords in it: chmod 0640, with the "
        "group of the mirror's user."
    ]


def private_notes(config: "Config") -> list[str]:
    """Return a sentence for each way in which upstreams with accounts keep private content, and do not."""
    ways: dict[str, list[str]] = {}
    for each in config.upstreams:
        if each.has_accounts or each.private == "as-upstream":
            ways.setdefault(each.private, []).append(each.name)
    notes = []
    if names := ways.get("everybody"):
        accounts = f"the accounts at {', '.join(names)}"
        notes.append(f'every client can pull whatever {accounts} can read: private = "everybody".')
    named = any(each.effect == "allow" and (each.networks or each.identities) for each in config.rules)
    if (names := ways.get("named")) and not named:
        notes.append(
            f"what is private at {', '.join(names)} is served to nobody: no [[rule]] names clients for it. "
            'Write [[rule]], effect = "allow", networks = ["10.0.0.0/8"], or private = "everybody" with the '
            "upstream."
        )
    if (names := ways.get("as-upstream")) and config.server.tls_certificate is None:
        notes.append(
            f"clients send their passwords for {', '.join(names)} through the network as plain text: "
            'private = "as-upstream" without server.tls_certificate.'
        )
    return notes
