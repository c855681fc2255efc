"""The activity of one worker; tests/contract/test_pages_activity.py has it in a running mirror."""

import msgspec
from msgspec import Struct

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.transfer.flight import Flight
from mirror.transfer.plan import Segment
from mirror.web.activity.activity import MOST_ENDED, NOTE_CHARACTERS, Activity
from mirror.web.activity.entries import MOST_SAMPLES, ActivityQuestion
from mirror.web.activity.rates import Rates


class Source(Struct):
    """All that the activity reads of a source."""

    name: str


FIELDS = {
    "id": "1",
    "client": "10.0.0.1",
    "kind": "blob",
    "status": 200,
    "outcome": "hit",
    "bytes": 10,
    "total_ms": 500.0,
}


def ended(activity: Activity, **fields: object) -> None:
    class Record:
        id = "1"

    activity.end(Record(), {**FIELDS, **fields})  # type: ignore[arg-type]


def test_activity_is_bounded() -> None:
    """Neither requests, nor notes, nor samples of traffic pile up."""
    activity = Activity(0, Metrics(), list, list)
    for number in range(MOST_ENDED + 5):
        ended(activity, id=str(number), note="x" * 10_000)
    for _ in range(MOST_SAMPLES + 5):
        activity.sample_traffic()
    found = activity.snapshot(ActivityQuestion(2 * MOST_ENDED))
    assert len(found.recent) == MOST_ENDED
    assert found.recent[0].id == str(MOST_ENDED + 4)
    assert len(found.recent[0].why or "") == NOTE_CHARACTERS
    assert len(found.traffic) == MOST_SAMPLES
    assert activity.snapshot(ActivityQuestion(samples=3)).traffic == found.traffic[-3:]


def test_recent_requests_of_one_client_are_found() -> None:
    """The latest first; the hook receives each of them."""
    told: list[str] = []
    activity = Activity(0, Metrics(), list, list, clock=lambda: 7.0)
    activity.on_ended = lambda each: told.append(each.client)
    for client in ("a", "b", "a"):
        ended(activity, client=client, upstream="hub.test", repository="team/app", identity=["user:x"])
    found = activity.snapshot(ActivityQuestion(10, "a")).recent
    assert [each.client for each in found] == ["a", "a"]
    assert (found[0].ended, found[0].seconds, found[0].identity) == (7.0, 0.5, ["user:x"])
    assert told == ["a", "b", "a"]
    assert activity.snapshot(ActivityQuestion()).recent == []


def test_rate_of_a_download_is_that_of_each_source() -> None:
    """Bytes of connections that have ended count as well as those of connections that run."""
    now = 0.0
    activity = Activity(0, Metrics(), lambda: [flight], list)
    activity._rates = Rates(lambda: now)
    flight = Flight(Digest.of(b"x"), Repository("hub.test", "team/app"))
    fast, slow = (Segment(Source(name), 0, 10_000, 0.0) for name in ("fast.test", "slow.test"))
    flight.progress.segments = [fast, slow]  # type: ignore[list-item]
    assert activity.snapshot(ActivityQuestion()).downloads[0].rates == {"fast.test": 0.0, "slow.test": 0.0}
    now = 2.0
    for segment, length in ((fast, 4000), (slow, 100)):
        segment.record(now, length)
    assert flight.progress.note_ended(fast) == 4000  # type: ignore[arg-type]
    flight.progress.segments = [slow]  # type: ignore[list-item]
    (download,) = activity.snapshot(ActivityQuestion()).downloads
    assert download.rates == {"fast.test": 2000.0, "slow.test": 50.0}
    assert download.sources == {"slow.test": 1}


def test_half_of_a_character_in_a_note_is_no_obstacle() -> None:
    """A client that pushes JSON with one reaches the notes: everybody else still gets the activity."""
    activity = Activity(0, Metrics(), list, list)
    ended(activity, note="mediaType a/b\ud800", identity=["user:\ud800"])
    found = msgspec.json.decode(msgspec.json.encode(activity.snapshot(ActivityQuestion(5))))
    assert (found["recent"][0]["why"], found["recent"][0]["identity"]) == ("mediaType a/b?", ["user:?"])
