"""The config of an image, as far as people read it; bounded, because the author of the image writes it."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from mirror.oci import json_text

# Entries of a list that are shown, and characters of a text.
MOST_ENTRIES, MOST_CHARACTERS = 200, 2000

# Longest config that is read, in bytes.
MOST_BYTES = 1024 * 1024


class HistoryEntry(Struct, frozen=True):
    """A step by which the image was made. `empty`: it made no layer."""

    created: str
    created_by: str
    comment: str
    empty: bool


class ImageConfig(Struct, frozen=True, kw_only=True):
    """The config of an image."""

    created: str
    author: str
    user: str
    workdir: str
    stop_signal: str
    entrypoint: list[str]
    command: list[str]
    env: list[str]
    ports: list[str]
    volumes: list[str]
    labels: dict[str, str]
    history: list[HistoryEntry]


def read_config(data: bytes | None) -> ImageConfig | None:
    """Return the config in a blob; None if it is none."""
    if data is None:
        return None
    try:
        document = json_text.parse(data)
    except ValueError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("rootfs"), dict):
        return None
    settings = document.get("config")
    settings = settings if isinstance(settings, dict) else {}
    return ImageConfig(
        created=_text(document.get("created")),
        author=_text(document.get("author")),
        user=_text(settings.get("User")),
        workdir=_text(settings.get("WorkingDir")),
        stop_signal=_text(settings.get("StopSignal")),
        entrypoint=_texts(settings.get("Entrypoint")),
        command=_texts(settings.get("Cmd")),
        env=_texts(settings.get("Env")),
        ports=_names(settings.get("ExposedPorts")),
        volumes=_names(settings.get("Volumes")),
        labels=labels_of(settings.get("Labels")),
        history=_history(document.get("history")),
    )


def labels_of(value: object) -> dict[str, str]:
    """Return the entries of an object whose values are texts: labels, or annotations."""
    if not isinstance(value, Mapping):
        return {}
    return {_text(name): _text(text) for name, text in list(value.items())[:MOST_ENTRIES]}


def _history(value: object) -> list[HistoryEntry]:
    steps: list[Any] = value[:MOST_ENTRIES] if isinstance(value, list) else []
    return [
        HistoryEntry(
            _text(each.get("created")),
            _text(each.get("created_by")),
            _text(each.get("comment")),
            each.get("empty_layer") is True,
        )
        for each in steps
        if isinstance(each, dict)
    ]


def _text(value: object) -> str:
    return value[:MOST_CHARACTERS] if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    return [_text(each) for each in value[:MOST_ENTRIES]] if isinstance(value, list) else []


def _names(value: object) -> list[str]:
    return [_text(each) for each in list(value)[:MOST_ENTRIES]] if isinstance(value, dict) else []
