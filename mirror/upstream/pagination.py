"""Link header of paged lists (RFC 8288), as far as registries use it."""

import re
from collections.abc import Iterable

_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[\w*-]+\s*(?:=\s*(?:\"[^\"]*\"|[^\s,;\"]+))?)*)")
_REL = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s,;\"]+))", re.IGNORECASE)


def next_query(headers: Iterable[str]) -> str | None:
    """Return the raw query string of the first link with rel=next; None if there is no further page.

    Only the query is taken: host and path of such a link are often internal names of the registry, and no
    host is ever connected to because a header named it.
    """
    for header in headers:
        for target, parameters in _LINK.findall(header):
            relation = _REL.search(parameters)
            if relation and "next" in (relation[1] or relation[2] or "").lower().split():
                return target.partition("#")[0].partition("?")[2] or None
    return None
