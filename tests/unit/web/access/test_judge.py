"""Decisions about a request: the rules, and the limits of what the client has proven."""

from aiohttp.test_utils import make_mocked_request

from mirror.access.identity import Identity, Restriction
from mirror.access.policy import Policy
from mirror.access.rules import Action
from mirror.oci.reference import Repository
from mirror.web.access.judge import RequestJudge
from mirror.web.request_log import RequestRecord

NAMES = ["a/1", "a/2", "b/1", "c/1", "c/2"]
APP = Repository("hub.test", "app")


def request() -> RequestRecord:
    found = RequestRecord(make_mocked_request("GET", "/v2/"))
    found.identity = Identity("127.0.0.1")
    return found


def test_judge_denies_what_a_restriction_forbids() -> None:
    """A token may only have less than the rules give."""
    judge = RequestJudge(Policy(), None)
    limited = request()
    limited.identity = Identity("127.0.0.1", ("token:t",), (Restriction("token:t", ("hub.test/x",)),))
    assert judge.decide(request(), Action.PULL, APP, None).allowed
    assert not judge.decide(limited, Action.PULL, APP, None).allowed
    assert (judge.restricts(request()), judge.restricts(limited)) == (False, True)


def test_judge_decides_by_an_adopted_policy() -> None:
    judge = RequestJudge(Policy(), None)
    judge.adopt(Policy(default=False))
    assert not judge.decide(request(), Action.PULL, APP, None).allowed
    assert judge.restricts(request())
    assert judge.visitor(request()).policy is judge.policy
