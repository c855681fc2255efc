"""The activity of all workers as one."""

from msgspec.structs import replace

from mirror.web.activity.entries import (
    AccountState,
    SourceState,
    TrafficSample,
    UpstreamState,
    WorkerActivity,
)
from mirror.web.activity.together import TrafficRate, together
from tests.unit.web.activity.test_entries import ENDED

NOBODY = AccountState(
    account="anonymous", refused=False, budget="plenty", limit=None, remaining=None, window=None, source=None
)
SOURCE = SourceState(
    source="hub.test", breaker="closed", latency=0.2, speed=0.0, connections=1, accounts=[NOBODY]
)
HUB = UpstreamState(name="hub.test", offline=False, sources=[SOURCE])
ONE = WorkerActivity(worker=0, requests=[], downloads=[], recent=[], upstreams=[HUB])


def test_traffic_of_all_workers_is_added_up() -> None:
    """Each in its own steps; a worker that was restarted counts for nothing before."""
    first = replace(ONE, traffic=[TrafficSample(10.0, 0, 0), TrafficSample(12.0, 200, 20)])
    second = replace(ONE, traffic=[TrafficSample(10.5, 1000, 0), TrafficSample(12.5, 1100, 0)])
    assert together([first, second], 0).traffic == [TrafficRate(12.0, 150.0, 10.0)]
    again = replace(ONE, traffic=[TrafficSample(10.0, 500, 50), TrafficSample(12.0, 0, 0)])
    assert together([again], 0).traffic == [TrafficRate(12.0, 0.0, 0.0)]
    just_now = replace(ONE, traffic=[TrafficSample(10.0, 0, 0), TrafficSample(10.1, 900, 900)])
    assert together([just_now], 0).traffic == []


def test_last_step_of_the_traffic_waits_for_all_workers() -> None:
    """Else the rates would fall each time that one worker is a moment behind the others."""
    samples = [TrafficSample(each, 100 * number, 0) for number, each in enumerate((11.0, 13.0, 15.0))]
    both = [replace(ONE, traffic=samples), replace(ONE, traffic=samples[:2])]
    assert together(both, 0).traffic == [TrafficRate(12.0, 100.0, 0.0)]
    just_started = replace(ONE, traffic=samples[:1])
    assert len(together([both[0], just_started], 0).traffic) == 2


def test_recent_requests_of_all_workers_are_in_order() -> None:
    """The latest first, as many as are wanted."""
    workers = [replace(ONE, recent=[replace(ENDED, id=str(at), ended=at)]) for at in (1.0, 3.0, 2.0)]
    assert [each.id for each in together(workers, 2).recent] == ["3.0", "2.0"]


def test_state_of_an_upstream_is_the_worst_of_all_workers() -> None:
    """Connections are added, what is left of a rate limit is the least, and speeds were measured."""
    account = replace(NOBODY, remaining=20, limit=100, budget="low")
    other = replace(SOURCE, breaker="open", latency=0.5, speed=1e6, connections=2, accounts=[account])
    found = together([ONE, replace(ONE, upstreams=[replace(HUB, sources=[other])])], 0).upstreams
    assert found == [replace(HUB, sources=[replace(other, connections=3)])]
    alone = replace(ONE, upstreams=[replace(HUB, name="quay.test")])
    assert [each.name for each in together([ONE, alone], 0).upstreams] == ["hub.test", "quay.test"]
