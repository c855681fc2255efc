"""Link header of paged lists (RFC 8288), as far as registries use it."""

import re
from collections.abc import Iterable
from itertools import islice
from urllib.parse import quote

_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[\w*-]+\s*(?:=\s*(?:\"[^\"]*\"|[^\s,;\"]+))?)*)")
_REL = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s,;\"]+))", re.IGNORECASE)

# Lines that are read, and characters of each: a registry sends one, of some hundred characters.
_MOST_LINES = 8
_LONGEST_LINE = 8 * 1024

# All printable characters of ASCII, which are passed on to the byte.
_URL_CHARACTERS = "".join(map(chr, range(0x21, 0x7F)))


def next_query(headers: Iterable[str]) -> str | None:
    """Return the query string of the first link with rel=next; None if there is no further page.

    The query is as sent, but characters that no URL has are escaped: it becomes a request and a header.
    Only the query is taken: host and path of such a link are often internal names of the registry, and no
    host is ever connected to because a header named it.
    """
    for header in islice(headers, _MOST_LINES):
        for target, parameters in _LINK.findall(header[:_LONGEST_LINE]):
            relation = _REL.search(parameters)
            if relation and "next" in (relation[1] or relation[2] or "").lower().split():
                query = target.strip().partition("#")[0].partition("?")[2]
                return quote(query, safe=_URL_CHARACTERS, errors="surrogateescape") or None
    return None
