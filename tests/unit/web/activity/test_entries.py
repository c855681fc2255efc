"""Entries of activity, as workers tell each other."""

import msgspec

from mirror.web.activity.entries import EndedRequest, TrafficSample, WorkerActivity

ENDED = EndedRequest(
    id="1",
    client="10.0.0.1",
    identity=[],
    kind="blob",
    upstream="hub.test",
    repository="team/app",
    reference=None,
    outcome="hit",
    status=200,
    why=None,
    ended=2.0,
    seconds=0.5,
    bytes=7,
)


def test_activity_of_a_worker_survives_its_way_to_another() -> None:
    told = WorkerActivity(
        worker=1, requests=[], downloads=[], recent=[ENDED], traffic=[TrafficSample(1.0, 2, 3)]
    )
    assert msgspec.json.decode(msgspec.json.encode(told), type=WorkerActivity) == told


def test_ended_request_has_the_name_of_its_repository() -> None:
    assert ENDED.name == "hub.test/team/app"
    assert msgspec.structs.replace(ENDED, repository=None).name is None
