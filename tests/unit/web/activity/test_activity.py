"""The activity of one worker; tests/contract/test_pages_activity.py has it in a running mirror."""

import msgspec

from mirror.metrics.metrics import Metrics
from mirror.web.activity.activity import MOST_ENDED, MOST_SAMPLES, NOTE_CHARACTERS, Activity
from mirror.web.activity.entries import ActivityQuestion

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
    assert len(found.traffic) == MOST_SAMPLES + 1


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


def test_half_of_a_character_in_a_note_is_no_obstacle() -> None:
    """A client that pushes JSON with one reaches the notes: everybody else still gets the activity."""
    activity = Activity(0, Metrics(), list, list)
    ended(activity, note="mediaType a/b\ud800", identity=["user:\ud800"])
    found = msgspec.json.decode(msgspec.json.encode(activity.snapshot(ActivityQuestion(5))))
    assert (found["recent"][0]["why"], found["recent"][0]["identity"]) == ("mediaType a/b?", ["user:?"])
