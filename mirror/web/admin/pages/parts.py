"""Parts of a page that renew themselves: what has changed since the last event is rendered and sent."""

from collections.abc import Callable, Mapping
from typing import Any

# Parts of the page Now, with the values that each shows; the ones for operators, and those for all.
OPERATOR_PARTS = {
    "now_numbers": ("rates", "disk", "workers"),
    "now_troubles": ("troubles",),
    "now_running": ("requests",),
    "now_downloads": ("downloads",),
    "now_upstreams": ("upstreams",),
    "now_recent": ("recent",),
}
VISITOR_PARTS = {name: OPERATOR_PARTS[name] for name in ("now_running", "now_recent")}

# Parts of the page "Is it me?".
OWN_PARTS = {"own": ("own",)}

Rendering = Callable[[str, Mapping[str, Any]], str]


class RenderedParts:
    """The parts as they were rendered last. `parts`: the values that each shows, by name."""

    def __init__(self, parts: Mapping[str, tuple[str, ...]]) -> None:
        self._parts = parts
        self._rendered: dict[str, tuple[list[Any], str]] = {}

    def renew(self, values: Mapping[str, Any], render: Rendering) -> dict[str, str]:
        """Return all parts; those are rendered again whose values have changed."""
        for name, shown in self._parts.items():
            wanted = [values[each] for each in shown]
            known = self._rendered.get(name)
            if known is None or known[0] != wanted:
                self._rendered[name] = wanted, render(f"{name}.html", values)
        return {name: html for name, (_, html) in self._rendered.items()}


def changes(parts: Mapping[str, str], sent: dict[str, str]) -> dict[str, str]:
    """Return the parts that are not as they were `sent`, which is brought up to date."""
    found = {name: html for name, html in parts.items() if sent.get(name) != html}
    sent.update(found)
    return found
