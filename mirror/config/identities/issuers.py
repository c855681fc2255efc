"""The options of issuers: servers of tokens (OpenID Connect) by which clients identify themselves."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from mirror.config.endpoints import http_url
from mirror.config.types import ReadableFile, Strings
from mirror.config.validation import After, Beside, Doc, Settings
from mirror.oci import json_text

# A name of an issuer stands in principals, between two colons.
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

# Hosts from which keys are taken without TLS: nothing is between them and the mirror.
LOOPBACK = ("127.0.0.1", "::1", "localhost")

# Longest file of keys, in bytes; `mirror.access.jwt.keys` has the same number.
DOCUMENT_BYTES = 512 * 1024


def _check_name(value: str) -> str:
    if NAME.fullmatch(value) is None:
        raise ValueError(
            f"{value!r:.80} is no name of an issuer: lower-case letters, digits, '.', '_' and '-'"
        )
    return value


def _check_audience(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not all(value):
        raise ValueError(
            "is empty: name the audience that tokens for this mirror have, for instance mirror.lan"
        )
    return value


def _check_url(value: str) -> str:
    """Refuse a URL by which keys would come unprotected. The spelling stays: tokens have the same one."""
    parts = http_url(value)
    if parts is None:
        raise ValueError("is not a URL, for instance https://gitlab.example.com")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("has a user or a fragment in it, which no issuer has")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ValueError("needs https: a client that can change the keys on their way could be anybody")
    return value


def _check_issuer(value: str) -> str:
    if "?" in value:
        raise ValueError("has a query in it: give it as the claim iss of its tokens has it")
    return value


def _check_keys(value: Path | None) -> Path | None:
    """Refuse a file at the start that is no key set."""
    if value is None:
        return None
    with value.open("rb") as file:
        data = file.read(DOCUMENT_BYTES + 1)
    try:
        document = json_text.parse(data) if len(data) <= DOCUMENT_BYTES else None
    except ValueError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError(f'{value} is no JSON Web Key Set, which begins with {{"keys": [')
    return value


def _check_one_source(value: str | None, valid: Mapping[str, Any]) -> str | None:
    if value is not None and valid.get("jwks_file") is not None:
        raise ValueError("is given, and jwks_file too: keep one of them")
    return value


IssuerURL = Annotated[str, After(_check_url)]


class IssuerSettings(Settings, frozen=True, kw_only=True):
    """An issuer of JSON Web Tokens, by which jobs of a CI or other workloads identify themselves.

    A client shows its token as `Authorization: Bearer`, or as the password of any user.
    """

    name: Annotated[
        str,
        After(_check_name),
        Doc("Name of the issuer in principals: jwt:NAME:SUBJECT.", examples=["gitlab"]),
    ]
    issuer: Annotated[
        IssuerURL,
        After(_check_issuer),
        Doc(
            "URL of the issuer, letter for letter as in the claim `iss` of its tokens.",
            examples=["https://gitlab.example.com"],
        ),
    ]
    audience: Annotated[
        Strings,
        After(_check_audience),
        Doc(
            "Audiences of tokens for this mirror: the claim `aud` must have one of them.",
            examples=[["https://mirror.lan:5000"]],
        ),
    ]
    claims: Annotated[
        Strings,
        Doc(
            "Claims that become principals, jwt:NAME:CLAIM=VALUE, besides the subject. A path leads to a "
            "claim in another one: kubernetes.io/namespace.",
            examples=[["project_path", "ref_protected"]],
        ),
    ] = ()
    jwks_file: Annotated[
        ReadableFile | None,
        After(_check_keys),
        Doc(
            "File with the issuer's public keys (JSON Web Key Set), read again when it changes. Default: "
            "they are fetched from the issuer.",
            examples=["/etc/registry-mirror/kubernetes.jwks"],
        ),
    ] = None
    jwks_url: Annotated[
        IssuerURL | None,
        Beside(_check_one_source),
        Doc(
            "URL of the issuer's public keys. Default: as its /.well-known/openid-configuration says.",
            examples=["https://gitlab.example.com/oauth/discovery/keys"],
        ),
    ] = None
    ca_file: Annotated[
        ReadableFile | None,
        Doc(
            "Certificates to trust besides those of the system, as PEM, when keys are fetched.",
            examples=["/etc/ssl/private-ca.crt"],
        ),
    ] = None
