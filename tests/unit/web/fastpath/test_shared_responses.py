"""Shared responses: one for all clients that get it, found by the whole head, and for nobody else."""

import gc
import math

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from mirror.access.identity import Identity
from mirror.cache.results import Outcome
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag, Target, TargetKind, Via
from mirror.web import responses
from mirror.web.fastpath.hit_log import LONGEST_LIFE_SECONDS
from mirror.web.fastpath.logins import KNOWN_SECONDS, SHORT
from mirror.web.fastpath.shared_responses import OVERHEAD, SharedResponses
from mirror.web.request_log import RequestRecord
from mirror.web.response_cache import ResponseCache

REPOSITORY = Repository("docker.io", "library/x")
DIGEST = Digest.of(b"content")
PATH = "/v2/library/x/manifests/t"


def head(login: str) -> bytes:
    return f"GET {PATH} HTTP/1.1\r\nHost: m\r\nAuthorization: {login}\r\n\r\n".encode()


class Line:
    """The other end of a connection, which keeps what was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written.append(data)


class Scene:
    """A response cache with a clock; the rights of a login are its first letter."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.now, self.removal, self.access = 0.0, 1, 1
        self.used: list[Digest] = []
        self.cache = ResponseCache(
            limit, Metrics(), self.used.append, lambda: self.now, lambda: self.removal, lambda: self.access
        )
        self.rights: dict[str, str] = {}
        self.cache.logins.rights_of = self._rights_of
        self.kind, self.body, self.rule = TargetKind.MANIFEST, b"content", "rule 1"
        self.ttl, self.identity_ttl, self.age_matters = math.inf, math.inf, False

    def _rights_of(self, record: RequestRecord) -> str:
        login = record.request.headers["Authorization"]
        return self.rights.get(login, login[0])

    async def take_full_path(self, login: str) -> None:
        request = make_mocked_request("GET", PATH, headers=CIMultiDict(Authorization=login))
        record = RequestRecord(request, self.removal, self.access)
        record.identity, record.has_login = Identity("127.0.0.1", (f"user:{login}",)), True
        record.outcome, record.digest, record.rule = Outcome.HIT, DIGEST, self.rule
        record.ttl, record.identity_ttl, record.age_matters = self.ttl, self.identity_ttl, self.age_matters
        record.target = Target(self.kind, Via.ROOT, "docker.io", REPOSITORY, Tag("t"))
        response: web.StreamResponse = responses.buffered(record, 200, {}, self.body)
        await self.cache.remember(0, head(login), record, response)

    def is_answered(self, login: str, scope: int = 0) -> bool:
        line = Line()
        answered = self.cache.answer(scope, head(login), line, "127.0.0.1")  # type: ignore[arg-type]
        assert answered is (line.written != [])
        assert all(each.endswith(self.body) for each in line.written)
        return answered

    async def warm_up(self, *logins: str) -> None:
        for login in (logins[0], *logins):
            await self.take_full_path(login)
        assert all(self.is_answered(login) for login in logins)


async def test_clients_with_other_rights_share_one_response() -> None:
    """Each kind of rights needs a verdict of its own; the bytes are kept once."""
    scene = Scene()
    await scene.warm_up("a1", "b1")
    assert not scene.is_answered("a2")  # nobody has verified that login
    assert not scene.is_answered("c1")
    assert not scene.is_answered("a1", scope=1)
    assert len(scene.cache._responses) == 1


async def test_look_of_one_client_renews_the_response_for_all_with_a_verdict() -> None:
    scene = Scene()
    await scene.warm_up("a1", "a2", "b1")
    for _ in range(3):
        scene.now += LONGEST_LIFE_SECONDS
        assert not any(scene.is_answered(each) for each in ("a1", "a2", "b1"))
        await scene.take_full_path("a1")
        assert all(scene.is_answered(each) for each in ("a1", "a2", "b1"))
    scene.removal += 1
    assert not any(scene.is_answered(each) for each in ("a1", "a2", "b1"))
    await scene.take_full_path("b1")
    assert all(scene.is_answered(each) for each in ("a1", "a2", "b1"))


async def test_list_is_renewed_for_clients_with_the_same_rights_alone() -> None:
    """Another client's list may be still the same when there is something new for this one."""
    scene = Scene()
    scene.kind = TargetKind.TAGS
    await scene.warm_up("a1", "a2")
    await scene.warm_up("b1", "b2")
    scene.now += LONGEST_LIFE_SECONDS
    await scene.take_full_path("b1")
    assert [scene.is_answered(each) for each in ("b1", "b2", "a1", "a2")] == [True, True, False, False]


async def test_changed_content_is_another_response() -> None:
    """A verdict for the old response gives no other one, and the old response ends with its time."""
    scene = Scene()
    await scene.warm_up("a1", "a2", "b1")
    scene.now += LONGEST_LIFE_SECONDS
    scene.body = b"changed"
    await scene.warm_up("a1")
    assert scene.is_answered("a2")
    assert not scene.is_answered("b1")


async def test_verdict_ends_with_the_access_epoch() -> None:
    """A look for one client in the new epoch gives no lost right back to another client."""
    scene = Scene()
    await scene.warm_up("a1", "a2", "b1")
    scene.access += 1
    assert not any(scene.is_answered(each) for each in ("a1", "a2", "b1"))
    await scene.take_full_path("b1")
    assert [scene.is_answered(each) for each in ("b1", "a1", "a2")] == [True, False, False]
    await scene.take_full_path("a1")
    assert [scene.is_answered(each) for each in ("b1", "a1", "a2")] == [True, True, False]


@pytest.mark.parametrize(
    ("identity_ttl", "age_matters", "seconds"),
    [(7.0, False, 7.0), (math.inf, True, LONGEST_LIFE_SECONDS), (math.inf, False, KNOWN_SECONDS)],
)
async def test_verdict_ends_with_its_term(identity_ttl: float, age_matters: bool, seconds: float) -> None:
    """The login ends, the image may have become too old for the client, or a look is due in any case."""
    scene = Scene()
    scene.identity_ttl, scene.age_matters = identity_ttl, age_matters
    await scene.warm_up("a1")
    while scene.now < seconds:  # another client has the response renewed
        scene.identity_ttl, scene.age_matters = math.inf, False
        await scene.take_full_path("b1")
        assert scene.is_answered("a1")
        scene.now += min(seconds - scene.now, LONGEST_LIFE_SECONDS)
    await scene.take_full_path("b1")
    assert scene.is_answered("b1")
    assert not scene.is_answered("a1")


async def test_head_of_a_login_that_is_another_clients_now_is_forgotten() -> None:
    """The access line names the client that the login is verified as."""
    scene = Scene()
    await scene.warm_up("a1", "a2")
    scene.rights["a1"] = "c"
    await scene.take_full_path("a1")
    assert not scene.cache.shared.heads
    assert scene.is_answered("a1")
    assert scene.is_answered("a2")
    assert scene.cache.shared.heads[0, head("a1")].login.peers.rights == "c"


async def test_rule_in_the_audit_log_is_no_other_clients() -> None:
    """Clients that different rules allow share nothing if pulls are audited."""
    scene = Scene()
    scene.cache.hits.audit = object()  # type: ignore[assignment]
    scene.cache.hits.audit_entry = lambda record: None  # type: ignore[method-assign]
    await scene.warm_up("a1", "a2")
    scene.rule = "rule 2"
    await scene.take_full_path("b1")
    assert not scene.is_answered("b1")
    await scene.take_full_path("b1")
    assert scene.is_answered("b1")
    assert len(scene.cache._responses) == 2


async def test_dropped_response_is_kept_by_no_head() -> None:
    scene = Scene(limit=2000)
    await scene.warm_up("a1")
    scene.body = b"x" * 500
    await scene.warm_up("b1")
    assert len(scene.cache._responses) == 1
    scene.cache.flush()  # what was sent is recorded first
    gc.collect()
    scene.body = b"content"
    assert not scene.is_answered("a1")


async def test_long_login_is_in_no_head() -> None:
    """A login that is known by a hash alone stays so."""
    scene, login = Scene(), f"a{'x' * SHORT}"
    await scene.warm_up(login)
    assert not scene.cache.shared.heads


async def test_heads_are_bounded() -> None:
    """All heads are forgotten when the room is full, and found again by their logins."""
    scene = Scene()
    cost = len(head("a00")) + OVERHEAD
    scene.cache.shared._limit = 10 * cost
    logins = [f"a{number:02}" for number in range(25)]
    await scene.warm_up(*logins)
    assert len(scene.cache.shared.heads) == 5
    assert all(scene.is_answered(each) for each in (*logins, *logins))
    assert scene.cache.shared._size == cost * len(scene.cache.shared.heads) <= 10 * cost


async def test_closed_shared_responses_know_nothing() -> None:
    scene = Scene()
    await scene.warm_up("a1")
    scene.cache.close()
    await scene.take_full_path("a1")
    assert not scene.is_answered("a1")
    assert not scene.cache.shared.heads
    assert isinstance(scene.cache.shared, SharedResponses)
