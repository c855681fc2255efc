"""Lists as a client may see them: repositories and tags of which it may know."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Sequence

from mirror.access.rules import Action
from mirror.cache.results import CatalogAnswer
from mirror.oci import json_text
from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import Repository, Target
from mirror.web.access.judge import RequestJudge
from mirror.web.request_log import RequestRecord

FetchCatalog = Callable[[str, int], Awaitable[CatalogAnswer]]

# Names of a catalog, or tags, that are judged before other clients have their turn: some milliseconds with a
# thousand rules.
NAMES_AT_ONCE = 8

# Actions that a client needs to know of a repository.
KNOWING = (Action.LIST, Action.PULL)

# Names of a catalog that are asked for at once, at the least, where rules hide some: a client that may list
# nothing would cost a query of the index for each repository, with n=1.
NAMES_ASKED = 1000

# The most tags of a page that are compared with the rules; a page of the largest repositories has fewer.
MOST_TAGS = 100_000


class ListFilter:
    """Lists without what the client of a request may not know of."""

    def __init__(self, judge: RequestJudge) -> None:
        self._judge = judge

    async def catalog(
        self, record: RequestRecord, target: Target, fetch: FetchCatalog, after: str, limit: int
    ) -> tuple[list[str], bool]:
        """Return a page of the names that the client may list, and whether another one follows.

        `fetch` returns the page of all names after a name. A name that is not shown ends no page: the next
        page would be asked for by that name.
        """
        shown: list[str] = []
        restricts = self._judge.restricts(record) or self._judge.gate is not None
        asked = max(limit, NAMES_ASKED) if limit and restricts else limit
        while True:
            page = await fetch(after, asked)
            private = await self._private(record, target, page.repositories)
            for number, name in enumerate(page.repositories):
                if name not in private and self._may_list(record, target, name):
                    if len(shown) == limit:
                        return shown, True
                    shown.append(name)
                if number % NAMES_AT_ONCE == NAMES_AT_ONCE - 1:
                    await asyncio.sleep(0)
            if not page.more or not page.repositories:
                return shown, False
            after = page.repositories[-1]

    async def repositories(self, record: RequestRecord, names: Collection[str]) -> set[str]:
        """Return those of the repositories, `<upstream>/<repository>`, of which the client may know."""
        found = sorted(names)
        if self._judge.restricts(record):
            allowed = []
            for number, name in enumerate(found, 1):
                repository = Repository(*name.split("/", 1))
                if all(self._judge.decide(record, each, repository, None).allowed for each in KNOWING):
                    allowed.append(name)
                if number % NAMES_AT_ONCE == 0:
                    await asyncio.sleep(0)
            found = allowed
        if self._judge.gate is not None and found:
            return set(found) - await self._judge.gate.hidden(self._judge.visitor(record), found)
        return set(found)

    def may_know_tag(self, record: RequestRecord, repository: Repository, tag: str) -> bool:
        """Return whether the client may know of a tag in a repository of which it may know."""
        return (
            not self._judge.restricts(record)
            or self._judge.decide(record, Action.PULL, repository, tag).allowed
        )

    def hides(self, record: RequestRecord) -> bool:
        """Return whether there may be content of which the client may not know."""
        return self._judge.restricts(record) or self._judge.gate is not None

    async def tags(self, record: RequestRecord, repository: Repository, page: bytes) -> bytes:
        """Return a page of tags without those that the client may not pull.

        Raises RegistryError for a page that cannot be judged: it might tell of one.
        """
        if not self._judge.restricts(record):
            return page
        try:
            tags = json_text.parse(page, MOST_TAGS)["tags"] or []
            names = [str(tag) for tag in tags]
        except (ValueError, KeyError, TypeError) as error:
            message = f"the tags cannot be compared with the rules of this mirror ({error}); ask for n=1000"
            raise RegistryError(Code.UNAVAILABLE, message, status=502) from None
        shown: list[str] = []
        for number, tag in enumerate(names, 1):
            if self._judge.decide(record, Action.PULL, repository, tag).allowed:
                shown.append(tag)
            if number % NAMES_AT_ONCE == 0:
                await asyncio.sleep(0)
        return json.dumps({"name": repository.path, "tags": shown}, separators=(",", ":")).encode()

    async def _private(self, record: RequestRecord, target: Target, names: Sequence[str]) -> set[str]:
        """Return those of the names that are private, and not for this client."""
        if self._judge.gate is None:
            return set()
        prefix = "" if target.upstream is None else f"{target.upstream}/"
        hidden = await self._judge.gate.hidden(
            self._judge.visitor(record), [f"{prefix}{name}" for name in names]
        )
        return {name.removeprefix(prefix) for name in hidden}

    def _may_list(self, record: RequestRecord, target: Target, name: str) -> bool:
        if not self._judge.restricts(record):
            return True
        first, _, rest = name.partition("/")
        repository = Repository(first, rest) if target.upstream is None else Repository(target.upstream, name)
        return self._judge.decide(record, Action.LIST, repository, None).allowed
