"""Parts of a page that renew themselves."""

from collections.abc import Mapping
from typing import Any

from mirror.web.admin.pages.parts import OPERATOR_PARTS, OWN_PARTS, VISITOR_PARTS, RenderedParts, changes
from mirror.web.admin.pages.render import TEMPLATES


def test_part_is_rendered_when_what_it_shows_has_changed() -> None:
    rendered: list[str] = []

    def render(name: str, values: Mapping[str, Any]) -> str:
        rendered.append(name)
        return f"{name} {values}"

    parts, values = RenderedParts({"one": ("a",), "two": ("a", "b")}), {"a": [1], "b": 2}
    parts.renew(values, render)
    assert rendered == ["one.html", "two.html"]
    assert parts.renew({"a": [1], "b": 3}, render)["two"] == "two.html {'a': [1], 'b': 3}"
    assert rendered == ["one.html", "two.html", "two.html"]


def test_event_has_what_the_reader_has_not() -> None:
    """Each stream begins with all parts."""
    sent: dict[str, str] = {}
    assert changes({"one": "a", "two": "b"}, sent) == {"one": "a", "two": "b"}
    assert changes({"one": "a", "two": "c"}, sent) == {"two": "c"}
    assert changes({"one": "a", "two": "c"}, sent) == {}


def test_each_part_has_a_template() -> None:
    names = {each.stem for each in TEMPLATES.glob("*.html")}
    assert (OPERATOR_PARTS | VISITOR_PARTS | OWN_PARTS).keys() <= names
