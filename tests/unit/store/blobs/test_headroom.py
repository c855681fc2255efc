"""The headroom: how much, and how fast it may be made."""

from mirror.oci.digest import Digest
from mirror.store.blobs.headroom import MOST_BYTES, PERIOD, REMEMBERED, Allowance, headroom


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def digest(number: int) -> Digest:
    return Digest.of(b"%d" % number)


def test_headroom_is_a_small_share_of_the_quota() -> None:
    """A share, up to a limit; a tiny cache has none."""
    assert [headroom(limit) for limit in (0, 10, 1000, 1 << 50)] == [0, 0, 40, MOST_BYTES]


def test_allowance_is_one_headroom_in_a_period() -> None:
    """The first one at once; unused time is not saved up."""
    clock = Clock()
    allowance = Allowance(clock)
    assert allowance.left(100) == 100
    allowance.spend(100)
    assert allowance.left(100) == 0
    clock.now += PERIOD / 2
    assert allowance.left(100) == 50
    clock.now += 10 * PERIOD
    assert allowance.left(100) == 100


def test_allowance_is_overdrawn_by_a_large_blob() -> None:
    """A blob goes as a whole; the next ones wait for it to be paid."""
    clock = Clock()
    allowance = Allowance(clock)
    allowance.left(100)
    allowance.spend(300)
    clock.now += PERIOD
    assert allowance.left(100) == 0
    clock.now += 2 * PERIOD
    assert allowance.left(100) == 100


def test_allowance_is_earned_by_what_clients_ask_for() -> None:
    """At once, or later for what was prefetched; once for each blob."""
    allowance = Allowance(Clock())
    allowance.left(100)
    allowance.spend(100)
    allowance.note_stored(digest(1), 30, asked_for=True)
    allowance.note_stored(digest(2), 20, asked_for=False)
    assert (allowance.earned, allowance.left(100), allowance.earned) == (True, 30, False)
    for _ in range(2):
        allowance.note_request(digest(2))
        allowance.note_request(digest(3))
    assert allowance.left(100) == 50


def test_allowance_remembers_a_bounded_number_of_prefetched_blobs() -> None:
    """The oldest ones are forgotten."""
    allowance = Allowance(Clock())
    allowance.left(100)
    allowance.spend(100)
    for number in range(REMEMBERED + 1):
        allowance.note_stored(digest(number), 1, asked_for=False)
    for number in range(REMEMBERED + 1):
        allowance.note_request(digest(number))
    assert allowance.left(10 * REMEMBERED) == REMEMBERED
