"""Tags that are kept although they are gone upstream, in the list of a repository's tags.

The upstream does not list them any more. They follow its last page, in order; beyond the number that the
client asks for they are on pages of their own, which the upstream is not asked for.
"""

import json
from urllib.parse import parse_qsl, urlencode

from msgspec.structs import replace

from mirror.cache.results import Outcome, TagsAnswer
from mirror.cache.tag.gone import GoneKeeper
from mirror.oci import json_text
from mirror.oci.reference import Repository
from mirror.store.metadata.index import Gone, TagEntry
from mirror.store.parts.interfaces import Metadata
from mirror.util.tasks import off_loop

# The parameter of a page of kept tags; the others are `n` and `last`, as the specification has them.
KEPT = "kept"

# The most values of an upstream's page that is parsed; a page with more tags stays as it is.
MOST_VALUES = 100_000


class KeptList:
    """The kept tags of repositories, as pages of tags."""

    def __init__(self, metadata: Metadata, gone: GoneKeeper) -> None:
        self._metadata = metadata
        self._gone = gone

    async def page(self, repository: Repository, query: str) -> TagsAnswer | None:
        """Return a page of kept tags if the query is for one; None for a query to the upstream."""
        parameters = dict(parse_qsl(query))
        if KEPT not in parameters or not self._gone.keeps(repository):
            return None
        kept = [each for each in await self._names(repository) if each > parameters.get("last", "")]
        return _page(repository, [], kept, _limit(parameters))

    async def complete(self, repository: Repository, query: str, page: TagsAnswer) -> TagsAnswer:
        """Return a page of the upstream, with the kept tags behind it if it is the last one.

        A list of known tags, which a stale answer is, has them already.
        """
        if page.next_query is not None or page.outcome is Outcome.STALE or not self._gone.keeps(repository):
            return page
        kept = await self._names(repository)
        listed = await off_loop(len(page.data), _tags, page.data) if kept else None
        kept = [each for each in kept if each not in (listed or ())]
        if listed is None or not kept:
            return page
        return replace(_page(repository, listed, kept, _limit(dict(parse_qsl(query)))), outcome=page.outcome)

    async def latest_mark(self, repository: Repository) -> Gone | None:
        """Return the latest mark of the kept tags of a repository; None if no tag is kept."""
        if not self._gone.keeps(repository):
            return None
        marks = [entry.gone for _, entry in await self._entries(repository) if entry.gone is not None]
        return max(marks, key=lambda gone: gone.asked, default=None)

    async def _names(self, repository: Repository) -> list[str]:
        return [name for name, _ in await self._entries(repository)]

    async def _entries(self, repository: Repository) -> list[tuple[str, TagEntry]]:
        """Return the kept tags of a repository whose manifest is here, in order."""
        return await self._metadata.gone_tags(repository)


def _page(repository: Repository, listed: list[str], kept: list[str], limit: int | None) -> TagsAnswer:
    """Return a page of listed tags, and of kept ones as far as the limit allows."""
    room = len(kept) if limit is None else max(0, limit - len(listed))
    shown, rest = kept[:room], kept[room:]
    document = {"name": repository.path, "tags": [*listed, *shown]}
    data = json.dumps(document, separators=(",", ":")).encode()
    last = {"last": shown[-1]} if shown else {}
    more = bool(rest) and limit != 0
    return TagsAnswer(data, urlencode({"n": limit, **last, KEPT: 1}) if more else None, Outcome.HIT)


def _limit(parameters: dict[str, str]) -> int | None:
    number = parameters.get("n", "")
    return int(number) if number.isdigit() else None


def _tags(data: bytes) -> list[str] | None:
    """Return the tags of an upstream's page; None if it is not a page of tags."""
    try:
        document = json_text.parse(data, MOST_VALUES)
    except ValueError:
        return None
    tags = document.get("tags") or [] if isinstance(document, dict) else None  # some registries say null
    return [each for each in tags if isinstance(each, str)] if isinstance(tags, list) else None
