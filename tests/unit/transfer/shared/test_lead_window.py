"""The window of a fill that other mirrors follow."""

from typing import cast

import pytest

from mirror.oci.ranges import Span
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.shared.lead_window import (
    BETWEEN_SECONDS,
    FLOOR,
    LEAST_WINDOW,
    STALL_SECONDS,
    WAKE_BYTES,
    WINDOW_PART,
    LeadLimits,
    LeadWindow,
)

MIB = 1024 * 1024


class Growing:
    """The face of a growing file that the window sees; its bytes come in order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.chunk_size = MIB
        self.withheld = False
        self.here = 0
        self.waiting: list[int] = []

    @property
    def chunks(self) -> "Growing":
        return self

    def contiguous(self) -> int:
        return self.here

    def awaited_offsets(self) -> list[int]:
        return self.waiting


class Fill:
    """A fill with a window, at a time of its own."""

    def __init__(self, size: int = 64 * MIB, clients: int = 1) -> None:
        self.now = 100.0
        self.woken = 0
        self.growing = Growing(size)
        self.window = LeadWindow(self._wake, lambda: clients, lambda: self.now)

    def _wake(self) -> None:
        self.woken += 1

    def ceiling(self, here: int | None = None, after: float = 0.05) -> int:
        """Return up to where bytes may be fetched now, `here` being the bytes that have come."""
        self.now += after
        self.growing.here = self.growing.here if here is None else here
        gap = Span(self.growing.here, self.growing.size)
        cut = self.window.cut(cast(GrowingFile, self.growing), [gap])
        return cut[-1].stop if cut else self.growing.here


def test_window_holds_nothing_back_while_none_follows() -> None:
    """Leave the fill alone without followers; between two spans of one the window still holds."""
    fill = Fill()
    assert fill.ceiling() == fill.growing.size
    with fill.window.following(0):
        assert fill.ceiling() == LEAST_WINDOW
    assert fill.ceiling() == LEAST_WINDOW
    assert fill.ceiling(after=BETWEEN_SECONDS) == fill.growing.size


def test_window_moves_with_the_mirror_that_follows_furthest() -> None:
    """Wake the fill as it moves; the window is a part of a large blob, and ends where a chunk does."""
    fill = Fill(size=1024 * MIB)
    with fill.window.following(0), fill.window.following(MIB // 2):
        fill.window.advance(MIB // 4)  # of the other one
        assert fill.ceiling() == 33 * MIB
        fill.window.advance(MIB // 2 + 1)
        assert (fill.woken, fill.ceiling()) == (0, 33 * MIB)
        fill.window.advance(WAKE_BYTES)
        assert (fill.woken, fill.ceiling()) == (1, WAKE_BYTES + 1024 * MIB // WINDOW_PART)


def test_window_gives_nothing_beyond_it() -> None:
    """All gaps that begin behind its end wait, however many there are."""
    fill = Fill()
    gaps = [Span(2 * MIB, 3 * MIB), Span(7 * MIB, 9 * MIB), Span(10 * MIB, 64 * MIB)]
    with fill.window.following(0):
        fill.growing.here = 2 * MIB
        cut = fill.window.cut(cast(GrowingFile, fill.growing), gaps)
        assert cut == [Span(2 * MIB, 3 * MIB), Span(7 * MIB, 8 * MIB)]
        assert fill.window.cut(cast(GrowingFile, fill.growing), []) == []


@pytest.mark.parametrize("what", ["withheld", "jump", "stall"])
def test_window_is_open_where_it_would_only_harm(what: str) -> None:
    """A blob that is verified first, a client that reads from elsewhere, mirrors that take nothing."""
    fill = Fill()
    with fill.window.following(0):
        assert fill.ceiling(here=LEAST_WINDOW) == LEAST_WINDOW
        fill.growing.withheld = what == "withheld"
        if what == "jump":
            fill.growing.waiting = [40 * MIB]
        assert fill.ceiling(after=2 * STALL_SECONDS if what == "stall" else 0.05) == fill.growing.size
        fill.growing.withheld, fill.growing.waiting = False, []
        fill.window.advance(MIB)
        assert fill.ceiling() == MIB + LEAST_WINDOW


def test_window_stays_while_the_upstream_is_slow() -> None:
    """Mirrors that have all that is here stand still, and are not stalled."""
    fill = Fill()
    with fill.window.following(0):
        fill.window.advance(MIB)
        assert fill.ceiling(here=MIB, after=60) == MIB + LEAST_WINDOW


def test_window_holds_back_most_clients_no_further_than_to_a_rate() -> None:
    """Half of the clients that wait for it have FLOOR bytes a second, and no credit is left afterwards."""
    fill = Fill(clients=4)
    with fill.window.following(0):
        fill.growing.waiting = [LEAST_WINDOW]
        assert fill.ceiling(here=LEAST_WINDOW, after=0.25) == LEAST_WINDOW
        fill.growing.waiting = [LEAST_WINDOW] * 2
        assert fill.ceiling(after=0.25) == LEAST_WINDOW + FLOOR // 4
        assert fill.ceiling(after=0.25) == LEAST_WINDOW + FLOOR // 4  # which is not here yet
        fill.window.advance(1)
        fill.growing.waiting = []
        assert fill.ceiling() == LEAST_WINDOW + MIB


def test_window_bounds_the_spans_of_the_mirror_that_leads() -> None:
    """A span that began before others followed is no longer than the window; others are as ever."""
    leads = [True]
    limits = LeadLimits(leads=lambda: leads[0])
    assert limits.span_length(1024 * MIB, 1, 1e9, MIB) == LEAST_WINDOW
    assert limits.span_length(1024 * MIB, 1, 1e9, 16 * MIB) == 16 * MIB
    assert limits.span_length(MIB, 1, 1e9, MIB) == MIB
    leads[0] = False
    assert limits.span_length(1024 * MIB, 1, 1e9, MIB) == 64 * MIB
