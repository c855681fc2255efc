"""The lines of a process: which ones a body goes over, and who takes from them."""

import pytest

from mirror.access.identity import Identity
from mirror.access.limits import Bounds, Limit, Per, Shared
from mirror.system.shared_table import SharedTable
from mirror.web.limits import lines as module
from mirror.web.limits.lines import LineTable, TableSplit

ALICE = Identity("10.0.0.1", ("user:alice",))


def shared(name: str, per: Per, rate: int | None, sharer: str) -> Shared:
    return Shared(Limit(1, name, per, Bounds(bandwidth=rate)), sharer)


class Clock:
    """A clock that stands still."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_body_goes_over_the_lines_of_its_limits_and_the_common_one_last() -> None:
    """A line of one client is shared by body, a common one by client."""
    table = LineTable(SharedTable(Clock()).row(0))
    limits = [shared("all", Per.ALL, 10**9, ""), shared("each", Per.CLIENT, 10**6, "10.0.0.1")]
    pacer = table.pacer(limits, ALICE, "body1")
    assert pacer is not None
    assert [taker for _, taker in pacer._lines] == ["body1", "user:alice"]
    assert await pacer.take(1 << 30) == 100_000
    assert await pacer.take(10) == 10
    await pacer.take_all(50_000)


async def test_limits_without_bandwidth_have_no_line() -> None:
    table = LineTable(SharedTable(Clock()).row(0))
    assert table.pacer([shared("each", Per.CLIENT, None, "a")], ALICE, "body") is None
    assert table.charge([shared("each", Per.CLIENT, None, "a")], 10**9)


async def test_lines_that_are_idle_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_LINES", 4)
    table = LineTable(SharedTable(Clock()).row(0))
    busy = shared("each", Per.CLIENT, 10**6, "busy")
    table.charge([busy], 10**6)
    for number in range(20):
        table.pacer([shared("each", Per.CLIENT, 10**6, str(number))], ALICE, "body")
    assert len(table._lines) <= 4
    assert not table.charge([busy], 1)


async def test_charge_takes_nothing_if_one_line_is_in_debt() -> None:
    table = LineTable(SharedTable(Clock()).row(0))
    one, other = shared("one", Per.CLIENT, 10**6, "a"), shared("other", Per.ALL, 10**6, "")
    assert table.charge([one], 10**6)
    assert not table.charge([one, other], 10**6)
    assert table.charge([other], 10**6)


def test_split_is_by_what_is_active_in_each_worker() -> None:
    table = SharedTable(Clock())
    first, second = (TableSplit(table.row(number), 7) for number in (0, 1))
    assert first.share(0) == 1
    assert first.share(3) == 1
    assert second.share(1) == 0.25
    assert first.share(3) == 0.75
