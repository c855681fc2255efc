"""Answers of an upstream about an image: token, account, rate limit, the host of its blobs.

The mirror's own client asks, so that a failure here is one of the mirror too. Docker Hub counts one pull.
"""

from ipaddress import IPv6Address

from yarl import URL

from mirror.config.endpoints import UpstreamSettings
from mirror.doctor.finding import Diagnosis, error, fine, warning
from mirror.doctor.login import examine_login
from mirror.metrics.metrics import Metrics
from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Tag
from mirror.upstream.accounts import ANONYMOUS, Account
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http_client import DirectLocation
from mirror.upstream.registry_client import ManifestBody, RegistryClient

# Images that are public, small in the part that is read, and have been there for years.
IMAGES = {
    "docker.io": "library/busybox:latest",
    "quay.io": "prometheus/busybox:latest",
    "registry.k8s.io": "pause:3.9",
    "gcr.io": "distroless/static:latest",
    "public.ecr.aws": "docker/library/busybox:latest",
    "mcr.microsoft.com": "hello-world:latest",
    "ghcr.io": "linuxserver/nginx:latest",
    "lscr.io": "linuxserver/nginx:latest",
}

# An image to ask for where none is known: the way to "not found" shows as much as a registry tells.
ANY_IMAGE = "library/busybox:latest"

# Shares of a rate limit below which it is worth a word, and worth more than one.
LOW, OUT = 0.25, 0.10

WITHOUT = {
    Failure.UNREACHABLE: "look at the line above, at route and firewall",
    Failure.TIMEOUT: "try again; read_timeout under [[upstream]] makes the mirror wait longer",
    Failure.RATE_LIMITED: "an account raises the limit: username and password_file under [[upstream]]",
    Failure.SERVER_ERROR: "wait: the registry itself has a fault",
    Failure.DENIED: "an account that may read it: username and password_file under [[upstream]]",
}


async def examine_registry(settings: UpstreamSettings, image: str | None = None) -> list[Diagnosis]:
    """Return the findings about one upstream. `image`: REPOSITORY:TAG that the operator asks about."""
    registry = RegistryClient(settings, Metrics())
    try:
        findings = await _examine(registry, settings, image)
        for account in registry.accounts.all:
            findings += await examine_login(registry, settings.name, account, _path(settings, image)[0])
            findings += _rate_limit(settings.name, account)
    finally:
        await registry.close()
    return findings


def _path(settings: UpstreamSettings, image: str | None) -> tuple[str, str]:
    """Return the path of the repository that is asked about, at the upstream, and the tag."""
    repository, _, tag = (image or IMAGES.get(settings.name, ANY_IMAGE)).rpartition(":")
    return f"{settings.prefix}/{repository}" if settings.prefix else repository, tag


async def _examine(
    registry: RegistryClient, settings: UpstreamSettings, image: str | None
) -> list[Diagnosis]:
    name, wanted = settings.name, image or IMAGES.get(settings.name, ANY_IMAGE)
    path, tag = _path(settings, image)
    try:
        head = await registry.head_manifest(path, Tag.parse(tag))
    except UpstreamError as failure:
        if image is None and failure.failure in (Failure.NOT_FOUND, Failure.DENIED):
            return []  # it answers; whether it has anything is not known
        return [_refusal(name, wanted, failure)]
    if any(account.rate_limit.refused for account in registry.accounts.all) or head.digest is None:
        return [fine(name, f"{wanted} is found")]
    try:
        host = await _blob_host(registry, path, head.digest)
    except UpstreamError as failure:
        what = f"the blobs of {wanted} cannot be read: {failure.message}"
        why = "registries send blobs by another host, which must be reached and trusted as well"
        mend = "allow HTTPS to that host in firewall and proxy; a CA of a proxy goes into ca_file"
        return [error(name, what, why, mend)]
    by = f", its blobs come from {host}" if host else ""
    return [fine(name, f"{wanted} is found{by}")]


def _refusal(name: str, wanted: str, failure: UpstreamError) -> Diagnosis:
    mend = WITHOUT.get(failure.failure, "see what the registry says, and docs/upstreams.md")
    if failure.failure is Failure.NOT_FOUND:
        mend = "look at the name and the tag"
    return error(name, f"{wanted}: {failure.message}", "it can be served from the cache only", mend)


async def _blob_host(registry: RegistryClient, path: str, digest: Digest) -> str | None:
    """Read one byte of the image's config; return the host that has it if that is another one."""
    manifest = await registry.get_manifest(path, digest)
    config = _config_of(manifest)
    if config is None and (child := _first_child(manifest)) is not None:
        config = _config_of(await registry.get_manifest(path, child))
    if config is None:
        return None
    location = DirectLocation()
    async with registry.open_blob(path, config, 0, 1, location=location):
        found: URL | None = location.url
    return None if found is None else found.host


def _config_of(manifest: ManifestBody) -> Digest | None:
    return _digest(manifest, "config")


def _first_child(manifest: ManifestBody) -> Digest | None:
    return _digest(manifest, "manifests")


def _digest(manifest: ManifestBody, key: str) -> Digest | None:
    """Return the digest of a descriptor, or of the first in a list of them."""
    try:
        found = json_text.parse(manifest.data)[key]
        return Digest.parse((found[0] if isinstance(found, list) else found)["digest"])
    except (ValueError, KeyError, IndexError, TypeError, RegistryError):
        return None


def _rate_limit(name: str, account: Account) -> list[Diagnosis]:
    """Return the finding about what is left of an account's rate limit."""
    reading = account.rate_limit.reading
    if reading is None:
        return []
    of = "" if reading.limit is None else f" of {reading.limit}"
    window = "" if not reading.window else f" in {reading.window / 3600:g} hours"
    what = (
        f"{reading.remaining}{of} pulls{window} are left, counted by {_counted_by(reading.source, account)}"
    )
    if reading.share > LOW:
        return [fine(name, what)]
    mend = "an account raises the limit: username and password_file under [[upstream]]"
    why = "tags are revalidated less often, and nothing is prefetched; then new images wait"
    return [(error if reading.share <= OUT else warning)(name, what, why, mend)]


def _counted_by(source: str | None, account: Account) -> str:
    """Return whom a registry counts, in words: an address, a network of IPv6, or an account."""
    if account.name != ANONYMOUS:
        return f"the account {account.name}"
    if source is None:
        return "it does not say what"
    try:
        IPv6Address(source.partition("/")[0])
    except ValueError:
        return f"the address {source}, which everybody behind it shares"
    return f"the network {source} (/64), which everybody in it shares"
