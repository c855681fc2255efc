"""The options of `[[hosted.webhooks]]`: notifications of pushes, deletions and first pulls."""

from pathlib import Path
from typing import Annotated

from mirror.config.endpoints import http_url
from mirror.config.types import ReadableFile, Strings
from mirror.config.validation import After, Doc, Settings

EVENTS = ("push", "delete", "pull")

# Shortest secret, in bytes: who has seen one notification must not find it by trying.
LEAST_SECRET = 16


def _check_url(value: str) -> str:
    """Refuse what is no URL, and one with a user in it: it would be shown."""
    parts = http_url(value)
    if parts is None:
        raise ValueError("is not a URL, for instance https://ci.lan/hooks/registry")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("has a user or a fragment in it: the signature tells who sends a notification")
    return value


def _check_events(value: tuple[str, ...]) -> tuple[str, ...]:
    wrong = next((each for each in value if each not in EVENTS), None)
    if wrong is not None or not value:
        raise ValueError(f"{wrong!r} is no event: there are {', '.join(EVENTS)}")
    return value


def _check_secret(value: Path) -> Path:
    if len(read_secret(value)) < LEAST_SECRET:
        raise ValueError(f"{value} has less than {LEAST_SECRET} bytes: openssl rand -hex 32 > {value}")
    return value


def read_secret(path: Path) -> bytes:
    """Return the secret in a file, without the end of its line. Raises OSError."""
    return path.read_bytes().strip()


class WebhookSettings(Settings, frozen=True, kw_only=True):
    """Notifications: a signed POST for each push, deletion and first pull, queued on the disk and retried."""

    url: Annotated[
        str,
        After(_check_url),
        Doc(
            "Address that gets the notifications. No redirect is followed.",
            examples=["https://ci.lan/hooks/registry"],
        ),
    ]
    secret_file: Annotated[
        ReadableFile,
        After(_check_secret),
        Doc(
            "File with the secret of the signature, at least 16 bytes. It is read for each notification.",
            examples=["/etc/registry-mirror/webhook.secret"],
        ),
    ]
    events: Annotated[
        Strings,
        After(_check_events),
        Doc(
            'Events: "push" of a manifest or tag, "delete" of one, "pull": the first pull of a tag after a '
            "push.",
            examples=[["push", "delete"]],
        ),
    ] = EVENTS
    repositories: Annotated[
        Strings,
        Doc("Patterns of repositories, without the name of the registry.", examples=[["team/*"]]),
    ] = ("*",)
