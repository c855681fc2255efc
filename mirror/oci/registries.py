"""Host names as clients write them, and the names of registries that are well known.

A Host header that is none of the configured names is usually one of the mirror's own: an address, a name of
the local network, a name that a proxy or a Service gives it. Those are not listed anywhere, so any name must
do. The exceptions are here: names that belong to a public registry, and cannot be the mirror's own. A request
with such a Host was meant for that registry, and an answer from another one would be a wrong image.
"""

import re
from ipaddress import IPv6Address

# A registry as clients write it: a name, an address, an IPv6 address in brackets; with a port or without.
HOST = re.compile(r"(?:[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)*|\[[0-9a-fA-F:.]{2,45}\])(?::[0-9]{1,5})?")

# Longest name of a host, with a port (RFC 1035 2.3.4, RFC 6335 6).
HOST_LENGTH = 255 + 6

# Ports that a name without a port stands for, with "" for such a name.
DEFAULT_PORTS = frozenset({"", "80", "443"})

_PORT = re.compile(r":[0-9]+$")

_WELL_KNOWN = frozenset(
    {
        *("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"),
        *("registry.docker.io", "dhi.io", "ghcr.io", "docker.pkg.github.com", "quay.io", "lscr.io"),
        *("gcr.io", "registry.k8s.io", "k8s.gcr.io", "mcr.microsoft.com", "public.ecr.aws", "nvcr.io"),
        *("docker.elastic.co", "registry.gitlab.com", "registry.redhat.io", "registry.access.redhat.com"),
        *("registry.connect.redhat.com", "registry.fedoraproject.org", "registry.opensuse.org"),
        *("registry.suse.com", "container-registry.oracle.com", "icr.io", "cgr.dev", "xpkg.upbound.io"),
        *("docker.cloudsmith.io", "registry.digitalocean.com", "registry.heroku.com", "registry.ollama.ai"),
    }
)

# Hosted services where each customer's registry has a name of its own.
_HOSTED = re.compile(
    r"[a-z0-9-]+\.(?:gcr\.io|pkg\.dev|azurecr\.(?:io|cn|us)|icr\.io|ocir\.io|jfrog\.io|cr\.aliyuncs\.com)"
    r"|[0-9]+\.dkr\.ecr(?:-fips)?\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?"
    r"|registry(?:-vpc)?\.[a-z0-9-]+\.aliyuncs\.com"
)


def canonical_host(text: str) -> str | None:
    """Return a host in its one spelling: lower case, IPv6 compressed; None if `text` is no host."""
    if len(text) > HOST_LENGTH or HOST.fullmatch(text) is None:
        return None
    text = text.lower()
    if not text.startswith("["):
        return text
    address, _, port = text[1:].partition("]")
    try:
        return f"[{IPv6Address(address).compressed}]{port}"
    except ValueError:
        return None


def split_port(host: str) -> tuple[str, str]:
    """Return a host of `canonical_host` without its port, and the port, "" for none."""
    bare = _PORT.sub("", host)
    return bare, host[len(bare) + 1 :]


def is_public_registry(name: str) -> bool:
    """Return whether a host of `canonical_host`, without port, is the name of a public registry."""
    return name in _WELL_KNOWN or _HOSTED.fullmatch(name) is not None
