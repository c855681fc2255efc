"""Rendering of the pages: templates, words, numbers. Imported with the first page."""

import hashlib
import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from msgspec import Struct

from mirror.util.units import size

FOLDER = Path(__file__).parent
TEMPLATES = FOLDER / "templates"

# Files that a page loads, by name, with their types.
STATIC = {
    "pages.css": "text/css",
    "uplot.css": "text/css",
    "pages.js": "text/javascript",
    "charts.js": "text/javascript",
    "uplot.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

LANGUAGES = {"en": "English", "zh": "中文"}

MINUTE, HOUR, DAY = 60, 3600, 86400

# Durations since a moment, the longest one first; pages.js tells them by the same list.
AGOS = ((DAY, "{n} d ago"), (HOUR, "{n} h ago"), (MINUTE, "{n} min ago"), (1, "{n} s ago"))


class StaticFile(Struct, frozen=True):
    """A file that pages load. `version`: of its content, a part of its address."""

    data: bytes
    media_type: str
    version: str


class Renderer:
    """The templates, compiled, and the words of each language. Reads files: create in a thread."""

    def __init__(self) -> None:
        self.static = {name: _static(name, kind) for name, kind in STATIC.items()}
        self._words: Mapping[str, str] = json.loads((FOLDER / "text" / "zh.json").read_text())
        self._environment = jinja2.Environment(
            loader=jinja2.DictLoader({each.name: each.read_text() for each in TEMPLATES.glob("*.html")}),
            auto_reload=False,  # nothing is read from the disk while a page is rendered
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            bytes=size,
            number="{:,}".format,
            short=short_digest,
            address=image_address,
            percent=percent,
            span=span,
        )
        self._templates = {
            name: self._environment.get_template(name) for name in self._environment.list_templates()
        }

    def render(self, name: str, language: str, values: Mapping[str, Any]) -> str:
        """Return a page, or a part of one."""
        translate = partial(self.translate, language)
        return self._templates[name].render(
            **values,
            t=translate,
            language=language,
            languages=LANGUAGES,
            ago=partial(ago, translate),
            since=partial(since, translate),
            agos=[translate(text) for _, text in AGOS],
            now=time.time,
            moment=moment,
            static=self.address_of,
        )

    def translate(self, language: str, text: str, **values: object) -> str:
        """Return a text in a language, with values; the English one if there is no other."""
        found = self._words.get(text, text) if language == "zh" else text
        return found.format(**values) if values else found

    def address_of(self, name: str) -> str:
        """Return the address of a file that pages load."""
        return f"/static/{name}?v={self.static[name].version}"


def _static(name: str, kind: str) -> StaticFile:
    data = (FOLDER / "static" / name).read_bytes()
    return StaticFile(data, kind, hashlib.sha256(data).hexdigest()[:12])


def short_digest(digest: str) -> str:
    """Return the beginning of a digest, for people."""
    return digest.partition(":")[2][:12] or digest


def image_address(reference: str) -> str:
    """Return the address of an image's page."""
    return f"/images/{quote(reference, safe='/:@')}"


def percent(share: float) -> str:
    """Return a share for people."""
    return f"{share * 100:.0f} %" if share >= 0.1 or not share else f"{share * 100:.1f} %"


def span(seconds: float) -> str:
    """Return a duration for people: in days, hours, minutes, or seconds."""
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def moment(seconds: float) -> str:
    """Return a moment, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def ago(translate: "partial[str]", seconds: float, now: float | None = None) -> str:
    """Return how long ago a moment was, for people."""
    passed = max(0.0, (time.time() if now is None else now) - seconds)
    unit, text = next((each for each in AGOS if passed >= each[0]), AGOS[-1])
    return translate(text, n=int(passed // unit))


def since(translate: "partial[str]", seconds: float) -> Markup:
    """Return how long ago a moment was, as an element whose text a page keeps up to date."""
    return Markup('<span data-moment="{}">{}</span>').format(round(seconds), ago(translate, seconds))
