"""The options of upstreams: endpoints, accounts, sources, names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta

from mirror.config.logins import (
    AccountSettings,
    DockerConfigFile,
    HelperName,
    LoginSettings,
    check_accounts,
    docker_sources,
)
from mirror.config.types import (
    Attempts,
    DurationOrForever,
    HostName,
    Hosts,
    ReadableFile,
    Strings,
    Timeout,
)
from mirror.config.validation import After, Beside, Doc, WrongForm
from mirror.oci.reference import COMPONENT

if TYPE_CHECKING:
    from mirror.credentials.credential import LoginSource

# The beginning of repository names at a source.
PREFIX = re.compile(rf"({COMPONENT.pattern}(/{COMPONENT.pattern})*)?")

# A URL without its scheme, as people type one: a host, perhaps a port and a path.
BARE_URL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[^\s@?#]*)?")

# A host as the resolver takes it, of a URL: labels of DNS, in any alphabet and with "_" too; or IPv6.
URL_HOST = re.compile(r"[^\s%.]{1,63}(\.[^\s%.]{1,63})*\.?|[^\s]*:[^\s]*")

# What no URL has. Python drops some of it in silence.
NOT_IN_URL = re.compile(r"[\s\\\x00-\x1f\x7f]")

# The beginning of a URL that is neither http nor https.
OTHER_SCHEME = re.compile(r"(?!https?:)[A-Za-z][A-Za-z0-9+.-]*://")


def http_url(value: str) -> SplitResult | None:
    """Return the parts of a URL with http or https and a host; None for any other text."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a wrong port or IPv6 address
        return None
    return parts if usable and NOT_IN_URL.search(value) is None else None


def _check_url(value: str) -> str:
    if not _is_web_address(value):
        raise ValueError(f"is not a URL{_url_hint(value)}")
    parts = urlsplit(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError("has a user in it: set username and password_file instead")
    if parts.query or parts.fragment:
        raise ValueError("has a query or fragment in it: give the registry's base URL")
    base, api, prefix = f"{value.rstrip('/')}/".partition("/v2/")
    if api and prefix:
        raise ValueError(f"has /v2/ in it: write url = {base!r} and prefix = {prefix.strip('/')!r}")
    if api:
        raise ValueError(f"ends with /v2, which is added to it: write url = {base!r}")
    return value.rstrip("/")


def _check_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        parts = urlsplit(each) if _is_web_address(each) and "@" not in each else None
        if parts is None or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("has something in it that is not an origin, for instance https://auth.docker.io")
    return value


def check_prefix(value: str) -> str:
    """Refuse what no repository's name begins with."""
    if PREFIX.fullmatch(value) is None:
        raise WrongForm("must be the beginning of repository names, for instance docker.io or team/hub-proxy")
    return value


BaseURL = Annotated[str, After(_check_url)]


def _check_client_cert(value: Path | None, valid: Mapping[str, Any]) -> Path | None:
    if value is not None and str(valid.get("url", "https:")).startswith("http:"):
        raise ValueError("needs TLS: give a url that begins with https://")
    return value


def _check_client_key(value: Path | None, valid: Mapping[str, Any]) -> Path | None:
    """Load the pair, so that a wrong pair is an error at the start and not at the first connection."""
    certificate: Path | None = valid.get("client_cert")
    if "client_cert" in valid and (certificate is None) != (value is None):
        raise ValueError("and client_cert belong together: give both or none")
    if certificate is not None and value is not None:
        from mirror.util.tls import check_pair  # imports ssl, which few commands need (10 ms)

        check_pair(certificate, value)
    return value


def _check_private(value: str, valid: Mapping[str, Any]) -> str:
    if value == "as-upstream" and valid.get("client_cert") is not None:
        raise ValueError(
            'is "as-upstream" beside client_cert: the upstream would answer the certificate, and not the '
            'client that asks; use "named"'
        )
    return value


class EndpointSettings(LoginSettings, frozen=True, kw_only=True):
    """Location of a registry, and how to treat it."""

    url: Annotated[BaseURL, Doc("Base URL of the registry.", examples=["https://registry-1.docker.io"])]
    accounts: Annotated[
        tuple[AccountSettings, ...],
        Beside(check_accounts),
        Doc(
            "Further accounts, used one after another.",
            examples=[[{"username": "us", "password_file": "/etc/registry-mirror/us.password"}]],
        ),
    ] = ()
    docker_config: Annotated[
        DockerConfigFile | None,
        Doc(
            "Docker's config.json with a login for the endpoint, in auths, credHelpers or credsStore, used "
            "after `username` and `accounts`. It is read again half a minute after it has changed, and its "
            "helpers are asked again after `password_refresh`.",
            examples=["/etc/registry-mirror/config.json"],
        ),
    ] = None
    credential_helper: Annotated[
        HelperName | None,
        Doc(
            "Credential helper of Docker that has the login for the endpoint: ecr-login for the program "
            "docker-credential-ecr-login on PATH. Used after `docker_config`.",
            examples=["ecr-login"],
        ),
    ] = None
    realms: Annotated[
        Strings,
        After(_check_origins),
        Doc(
            "Origins that may receive the password, besides that of `url`.",
            examples=[["https://auth.docker.io"]],
        ),
    ] = ()
    ca_file: Annotated[
        ReadableFile | None,
        Doc(
            "Certificates to trust besides those of the system, as PEM.", examples=["/etc/ssl/private-ca.crt"]
        ),
    ] = None
    client_cert: Annotated[
        ReadableFile | None,
        Beside(_check_client_cert),
        Doc(
            "Certificate that the mirror shows to the endpoint, followed by its chain, as PEM. It is shown "
            "to the origins of `url` and `realms` only, and not along a redirect. Goes together with "
            "`client_key`.",
            examples=["/etc/registry-mirror/client.crt"],
        ),
    ] = None
    client_key: Annotated[
        ReadableFile | None,
        Beside(_check_client_key),
        Doc(
            "Private key of `client_cert`, as PEM and without a passphrase.",
            examples=["/etc/registry-mirror/client.key"],
        ),
    ] = None
    private_redirects: Annotated[
        bool,
        Doc(
            "Follow redirects to private addresses even if the endpoint is public. An endpoint at a "
            "private address, and every http endpoint, may redirect there without it."
        ),
    ] = False
    max_connections: Annotated[
        int,
        Meta(ge=1, le=10_000),
        Doc("Maximum number of connections to the endpoint. One in eight is reserved for small requests."),
    ] = 32
    connect_timeout: Annotated[Timeout, Doc("Time to connect.")] = 10
    read_timeout: Annotated[
        Timeout,
        Doc(
            "Time between two pieces of a response, and for the whole head of a response. A body that "
            "brings less than 1 KiB per second for this time is given up."
        ),
    ] = 30
    attempts: Annotated[Attempts, Doc("Attempts at a request that fails for a temporary reason.")] = 3

    def logins(self) -> "tuple[LoginSource, ...]":
        """Return the sources of the accounts in the order of their use."""
        named = [each.own_source() for each in (self, *self.accounts)]
        others = docker_sources(self, self.url, self.docker_config, self.credential_helper)
        return (*filter(None, named), *others)


class SourceSettings(EndpointSettings, frozen=True, kw_only=True):
    """Another mirror of an upstream.

    The mirror requests blobs, and manifests by digest, from sources and from the upstream itself: the digest
    proves what a source sends. Tags come from the upstream alone, unless `tags` is true. The upstream's
    credentials are never sent to a source; a source may have its own.
    """

    url: Annotated[BaseURL, Doc("Base URL of the source.", examples=["https://mirror.lan"])]
    prefix: Annotated[
        str,
        After(check_prefix),
        Doc(
            "Prefix of every repository at the source: mirror.lan/v2/docker.io/library/...",
            examples=["docker.io"],
        ),
    ] = ""
    weight: Annotated[
        float,
        Meta(gt=0, le=1000),
        Doc("Preference: the measured speed of the source counts this many times.", examples=[2.0]),
    ] = 1.0
    tags: Annotated[bool, Doc("Trust the source about tags as much as the upstream itself.")] = False

    def endpoint(self) -> dict[str, Any]:
        """Return the values that a source has in common with an upstream."""
        return {name: getattr(self, name) for name in EndpointSettings.options()}


class UpstreamSettings(EndpointSettings, frozen=True, kw_only=True):
    """A mirrored registry: its canonical name, its own endpoint, and other mirrors of it."""

    name: Annotated[
        HostName,
        Doc("Canonical name, which clients use as path prefix, as `ns` and as Host.", examples=["docker.io"]),
    ]
    prefix: Annotated[
        str,
        After(check_prefix),
        Doc(
            "Prefix of every repository at `url`, if that is another registry's project or mirror of the "
            "upstream: harbor.example/v2/hub-proxy/library/...",
            examples=["hub-proxy"],
        ),
    ] = ""
    aliases: Annotated[Hosts, Doc("Other names for the upstream.", examples=[["index.docker.io"]])] = ()
    hosts: Annotated[
        Hosts,
        Doc(
            "Names of this mirror that stand for the upstream, as Host headers.",
            examples=[["hub.mirror.lan"]],
        ),
    ] = ()
    recheck_access: Annotated[
        DurationOrForever,
        Doc(
            "Time for which content that was read with an account is served from the cache without asking "
            "the upstream again. After it the next request for the content asks with a HEAD, and a refusal "
            "ends the access; without an answer the content is served, marked as stale. Nothing is asked "
            "again at an upstream without an account.",
            examples=["1h"],
        ),
    ] = 24 * 3600
    private: Annotated[
        Literal["named", "as-upstream", "everybody"],
        Beside(_check_private),
        Doc(
            'Who gets what only an account at the upstream can read: "named", clients that an allow '
            '[[rule]] with `networks` or `identities` names for the repository; "as-upstream", besides them '
            "clients that send credentials of their own with which the upstream lets them read it; "
            '"everybody", all clients that may pull. What anybody may read at the upstream goes to all '
            'clients in any case. Without an account, and without "as-upstream", nothing is private.',
            examples=["as-upstream"],
        ),
    ] = "named"
    sources: Annotated[
        tuple[SourceSettings, ...],
        Doc(
            "Other mirrors of the upstream.",
            examples=[[{"url": "https://mirror.lan", "prefix": "docker.io"}]],
        ),
    ] = ()

    @property
    def keeps_private(self) -> bool:
        """Return whether there may be content of this upstream that not all clients may have."""
        return self.private == "as-upstream" or (self.private == "named" and self.has_accounts)

    @property
    def has_accounts(self) -> bool:
        """Return whether the upstream or a source of it is asked with an account or a client certificate."""
        return any(each.logins() or each.client_cert is not None for each in (self, *self.sources))


def _is_web_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        host = URL_HOST.fullmatch(parts.hostname or "") is not None and NOT_IN_URL.search(value) is None
        return parts.scheme in ("http", "https") and host and parts.port != 0
    except ValueError:  # a wrong port or IPv6 address
        return False


def _url_hint(value: str) -> str:
    """Suggest the URL that was meant, name a wrong scheme, or show an example.

    Never repeat a value with a password in it.
    """
    if BARE_URL.fullmatch(value) and _is_web_address(f"https://{value}"):
        return f"; did you mean https://{value}?"
    if OTHER_SCHEME.match(value) and "@" not in value:
        return f" with http:// or https://: {value!r:.80}"
    return ", for instance https://registry-1.docker.io"
