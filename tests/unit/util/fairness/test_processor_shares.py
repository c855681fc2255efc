"""Shares of the processor: which client waits, and how long."""

from itertools import pairwise

import pytest

from mirror.util.fairness.processor_shares import (
    ACTIVE_SECONDS,
    FIRST_ESTIMATE,
    HOLD_SECONDS,
    LONGEST_WAIT,
    LOOK_SECONDS,
    MOST_CHARGED,
    MOST_CLIENTS,
    PARTS,
    UNMEASURED,
    ProcessorShares,
)

BUSY, OTHER = "192.0.2.1", "192.0.2.2"


class Process:
    """A process with a clock that the test moves, and with shares."""

    def __init__(self) -> None:
        self.now, self.saturated = 100.0, True
        self.shares = ProcessorShares(lambda: self.saturated, lambda: self.now)

    def request(self, client: str, seconds: float = 0.0) -> float:
        """Have a request come, wait, take some time, and end; return its wait."""
        share = self.shares.begin(client)
        self.now += share.delay + seconds
        share.add(seconds)
        share.end()
        return share.delay

    def look(self) -> None:
        """Let the next request look at load and clients again."""
        self.now += 2 * LOOK_SECONDS


@pytest.fixture
def process() -> Process:
    return Process()


def contended(process: Process) -> Process:
    """Have another client's request run in a saturated process."""
    process.shares.begin(OTHER)
    process.look()
    process.request(BUSY)
    return process


def test_client_alone_never_waits(process: Process) -> None:
    """However much it asks for: there is nobody to make room for."""
    assert [process.request(BUSY, 0.01) for _ in range(50)] == [0.0] * 50


def test_client_of_an_unsaturated_process_never_waits(process: Process) -> None:
    """There is time for all."""
    process.saturated = False
    contended(process)
    assert [process.request(BUSY, 0.01) for _ in range(50)] == [0.0] * 50


def test_client_that_asks_without_a_pause_gets_its_part(process: Process) -> None:
    """Beside another one it has a PARTS-th of the time: what is charged, against all that passes."""
    contended(process)
    cost, count, began = 0.004, 200, process.now
    waits = [process.request(BUSY, cost) for _ in range(count)]
    share = count * (cost + UNMEASURED) / (process.now - began)
    assert share == pytest.approx(1 / PARTS, rel=0.05)
    assert max(waits) <= LONGEST_WAIT


def test_client_that_asks_for_little_never_waits(process: Process) -> None:
    """A request every so often has no one before it, beside a client that asks without a pause."""
    contended(process)
    for _ in range(20):
        for _ in range(10):
            process.request(BUSY, 0.004)
        assert process.request(OTHER, 0.004) == 0.0


def test_requests_that_come_together_begin_one_after_another(process: Process) -> None:
    """The starts are as far apart as the client's requests take on average, PARTS times."""
    contended(process)
    shares = [process.shares.begin(BUSY) for _ in range(5)]
    waits = [each.delay for each in shares]
    average = (waits[-1] - waits[0]) / 4
    assert [after - before for before, after in pairwise(waits)] == pytest.approx([average] * 4)
    assert average == pytest.approx(PARTS * FIRST_ESTIMATE, rel=0.2)


def test_no_request_waits_longer_than_the_longest_wait(process: Process) -> None:
    """A crowd of requests of one client is not put off without end."""
    contended(process)
    assert max(process.shares.begin(BUSY).delay for _ in range(5_000)) == LONGEST_WAIT


def test_one_request_is_charged_so_much_at_most(process: Process) -> None:
    """A client that was sent a large blob asks for the next one soon."""
    contended(process)
    process.request(BUSY, 10.0)
    process.shares.begin(OTHER)
    process.look()
    assert process.request(BUSY) <= PARTS * (MOST_CHARGED + FIRST_ESTIMATE)


def test_look_up_that_outlives_its_request_is_charged(process: Process) -> None:
    """Clients that ask and leave cause work that goes on without them."""
    contended(process)
    left = process.shares.begin(BUSY)
    left.end()
    before = process.shares.begin(BUSY).delay
    left.add(0.01)
    assert process.shares.begin(BUSY).delay >= before + PARTS * 0.01


def test_body_in_memory_is_charged_by_its_size(process: Process) -> None:
    """A manifest of 4 MB costs milliseconds to send, which no step of the request shows."""
    contended(process)
    small, large = process.shares.begin(BUSY), process.shares.begin(BUSY)
    small.end(1000)
    large.end(4_000_000)
    assert large.seconds - small.seconds == pytest.approx(0.004, rel=0.01)


def test_waiting_ends_after_the_saturation(process: Process) -> None:
    """The process counts as saturated for a while, since a client that waits makes it less busy."""
    contended(process)
    process.saturated = False
    process.look()
    process.request(BUSY, 0.01)
    assert process.request(BUSY, 0.01) > 0
    process.now += HOLD_SECONDS
    assert process.request(BUSY, 0.01) == 0
    assert process.request(BUSY, 0.01) == 0


def test_waiting_ends_when_the_other_client_has_left(process: Process) -> None:
    """A client is active until a while after its last request has ended."""
    other = process.shares.begin(OTHER)
    process.request(BUSY, 0.01)
    process.look()
    assert process.request(BUSY, 0.01) >= 0
    assert process.request(BUSY, 0.01) > 0
    other.end()
    process.now += ACTIVE_SECONDS + LOOK_SECONDS
    assert process.request(BUSY, 0.01) == 0


def test_accounts_of_clients_are_bounded(process: Process) -> None:
    """Clients without a running request are forgotten, those that have not come for longest first."""
    running = process.shares.begin("running")
    for number in range(3 * MOST_CLIENTS):
        process.request(f"client {number}")
        process.look()
    assert len(process.shares._accounts) <= MOST_CLIENTS + 1
    assert "running" in process.shares._accounts
    running.end()
