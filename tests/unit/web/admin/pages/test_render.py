"""Rendering of the pages: words, numbers, and files that are vendored."""

import hashlib
import json
import re
from functools import partial

import pytest

from mirror.web.admin.pages import render
from mirror.web.admin.pages.render import FOLDER, TEMPLATES, Renderer

WORDS = re.compile(r"""\bt\((?:"([^"]+)"|'([^']+)')""")

# uPlot 1.6.32 of npm, as it is there.
VENDORED = {
    "uplot.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uplot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}


def test_every_text_of_the_pages_is_there_in_chinese() -> None:
    """Both texts of an entry have the same values in them."""
    words = json.loads((FOLDER / "text" / "zh.json").read_text())
    texts = {a or b for page in TEMPLATES.glob("*.html") for a, b in WORDS.findall(page.read_text())}
    assert texts - words.keys() == set()
    for text, chinese in words.items():
        assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", chinese)), text


def test_vendored_files_are_what_was_published() -> None:
    for name, digest in VENDORED.items():
        assert hashlib.sha256((FOLDER / "static" / name).read_bytes()).hexdigest() == digest


def test_no_script_of_ours_writes_html_of_its_own() -> None:
    """The server renders, and escapes; nothing is evaluated."""
    scripts = "".join((FOLDER / "static" / name).read_text() for name in ("pages.js", "charts.js"))
    assert not re.search(r"\beval\(|new Function|document\.write|outerHTML|insertAdjacentHTML", scripts)
    assert len(re.findall(r"innerHTML", scripts)) == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5 s ago"), (120, "2 min ago"), (7300, "2 h ago"), (200_000, "2 d ago"), (-9, "0 s ago")],
)
def test_moments_are_told_as_durations(seconds: float, text: str) -> None:
    translate = partial(Renderer().translate, "en")
    assert render.ago(translate, 1000.0, 1000.0 + seconds) == text


def test_numbers_for_people() -> None:
    assert [render.percent(each) for each in (0.0, 0.004, 0.5)] == ["0 %", "0.4 %", "50 %"]
    assert [render.span(each) for each in (5, 90, 7200, 200_000)] == ["5 s", "1.5 min", "2.0 h", "2.3 d"]
    assert render.image_address("a/b@sha256:0") == "/images/a/b@sha256:0"
    assert render.image_address('a"<b') == "/images/a%22%3Cb"
