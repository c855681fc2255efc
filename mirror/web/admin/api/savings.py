"""The operation about savings: by day, upstream and repository, for up to a year."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from mirror.store.metadata.savings_book import SAVING_ERRORS, Amounts, SavingsBook
from mirror.web.activity.savings_counter import DAY
from mirror.web.admin.api.operation import ApiError, Audience, Operation
from mirror.web.admin.desk import Desk
from mirror.web.admin.visitors import PageVisitor

# Repositories of an answer, at most.
MOST_REPOSITORIES = 50


class SavingsParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of the savings. `days`: the last days to return."""

    days: Annotated[int, Meta(ge=1, le=366)] = 30


class SavingsRow(Struct, frozen=True, kw_only=True):
    """Sums of a day, an upstream or a repository. `name`: of that; a day is its date.

    `saved`: bytes that were sent and not fetched; `received`: bytes that came from upstreams, 0 for a
    repository. `seconds_saved`: time that the same bytes would have taken at the speed of what was fetched.
    """

    name: str
    moment: float
    requests: int
    hits: int
    saved: int
    received: int
    seconds_saved: float


class Savings(Struct, frozen=True):
    """The savings of the last days."""

    total: SavingsRow
    days: list[SavingsRow]
    upstreams: list[SavingsRow]
    repositories: list[SavingsRow]


class SavingsOperations:
    """The operation about savings."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def operations(self) -> Sequence[Operation]:
        """Return the operation."""
        return (
            Operation(
                method="GET",
                path="/api/v1/savings",
                summary="What was served and not fetched, by day, upstream and repository",
                audience=Audience.READERS,
                call=self.savings,
                parameters=SavingsParameters,
                answer=Savings,
            ),
        )

    async def savings(self, visitor: PageVisitor, wanted: SavingsParameters) -> Savings:
        """Return the savings; repositories as far as the visitor may know of them."""
        await self._desk.write_savings()
        since = int(time.time() // DAY) - wanted.days + 1
        try:
            days, upstreams, repositories = await asyncio.to_thread(_read, self._desk.savings_book, since)
        except SAVING_ERRORS as error:
            raise ApiError(503, f"the savings cannot be read: {error}") from None
        total = _sum([each for _, each in days])
        speed = total.missed / total.seconds if total.seconds else 0.0
        visible = await visitor.visible([name for name, _ in repositories])
        return Savings(
            total=_row("total", 0.0, total, speed),
            days=[
                _row(time.strftime("%Y-%m-%d", time.gmtime(day * DAY)), day * DAY, each, speed)
                for day, each in days
            ],
            upstreams=[_row(name, 0.0, each, speed) for name, each in upstreams],
            repositories=[_row(name, 0.0, each, speed) for name, each in repositories if name in visible][
                :MOST_REPOSITORIES
            ],
        )


Named = list[tuple[str, Amounts]]


def _read(book: SavingsBook, since: int) -> tuple[list[tuple[int, Amounts]], Named, Named]:
    return book.days(since), book.upstreams(since), book.repositories(since, 10 * MOST_REPOSITORIES)


def _sum(amounts: Sequence[Amounts]) -> Amounts:
    return Amounts(*map(sum, zip(*(each.row() for each in amounts), strict=True))) if amounts else Amounts()


def _row(name: str, moment: float, amounts: Amounts, speed: float) -> SavingsRow:
    return SavingsRow(
        name=name,
        moment=moment,
        requests=amounts.requests,
        hits=amounts.hits,
        saved=amounts.saved,
        received=amounts.received,
        seconds_saved=round(amounts.saved / speed, 1) if speed else 0.0,
    )
