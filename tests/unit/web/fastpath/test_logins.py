"""Known logins: the same head for clients with the same rights, and no head for anybody else."""

import math

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from mirror.access.identity import Identity
from mirror.web.fastpath.logins import (
    HEADER,
    KNOWN_SECONDS,
    OVERHEAD,
    SHORT,
    KnownLogin,
    KnownLogins,
    SharedKey,
)
from mirror.web.request_log import RequestRecord

EPOCH = 7
PATH = "/v2/x/manifests/1"
FRONT, BACK = f"GET {PATH} HTTP/1.1\r\nHost: m", "\r\nAccept: */*\r\n\r\n"


def head(login: str, front: str = FRONT, back: str = BACK) -> bytes:
    return f"{front}\r\nAuthorization: {login}{back}".encode()


class Scene:
    """Known logins with a clock; `rights` by the login of a request."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rights: dict[str, object] = {"Bearer a": "dev", "Bearer b": "dev", "Bearer c": "ops"}
        self.logins = KnownLogins(lambda: self.now)
        self.logins.rights_of = lambda record: self.rights.get(record.request.headers["Authorization"])

    def find(self, data: bytes, scope: int = 0) -> tuple[SharedKey, KnownLogin] | None:
        return self.logins.find(scope, data, self.now)

    def note(
        self,
        login: str,
        *,
        data: bytes = b"",
        scope: int = 0,
        seconds: float = math.inf,
        more: tuple[str, ...] = (),
    ) -> object:
        headers = CIMultiDict([("Authorization", each) for each in (login, *more)])
        record = RequestRecord(make_mocked_request("GET", PATH, headers=headers), 0, EPOCH)
        record.identity, record.has_login = Identity("127.0.0.1", (f"user:{login}",)), True
        record.identity_ttl = seconds
        return self.logins.note(scope, data or head(login), record)


def test_clients_with_the_same_rights_share_a_key() -> None:
    scene = Scene()
    keys = [scene.note(f"Bearer {each}") for each in "abc"]
    assert keys[0] == keys[1] != keys[2] is not None
    for login, key in zip("abc", keys, strict=True):
        found = scene.find(head(f"Bearer {login}"))
        assert found is not None
        assert (found[0], found[1].names) == (key, (f"user:Bearer {login}",))
        assert found[1].shown == f'["user:Bearer {login}"]'


def test_login_is_known_to_the_scope_that_showed_it() -> None:
    """A certificate, or another network, is a part of what a client has proven."""
    scene = Scene()
    key, other = scene.note("Bearer a"), scene.note("Bearer a", scope=1)
    assert key != other
    assert scene.find(head("Bearer a"), 2) is None


def test_unknown_login_is_not_found() -> None:
    scene = Scene()
    assert scene.find(head("Bearer a")) is None
    scene.note("Bearer a")
    assert scene.find(head("Bearer b")) is None
    assert scene.find(head("Bearer aa")) is None
    assert scene.find(f"{FRONT}{BACK}".encode()) is None


def test_login_without_shared_rights_is_not_known() -> None:
    scene = Scene()
    assert scene.note("Bearer unknown") is None
    assert scene.find(head("Bearer unknown")) is None


def test_login_ends_with_its_term() -> None:
    """A change of rights ends it as well: its epoch is compared with that of the response."""
    scene = Scene()
    for seconds in (5.0, math.inf):
        scene.note("Bearer a", seconds=seconds)
        scene.now += min(seconds, KNOWN_SECONDS) - 0.1
        assert scene.find(head("Bearer a")) is not None
        scene.now += 0.1
        assert scene.find(head("Bearer a")) is None
    scene.note("Bearer a")
    found = scene.find(head("Bearer a"))
    assert found is not None
    assert found[1].access_epoch == EPOCH


@pytest.mark.parametrize(
    "data",
    [
        head("Bearer a", back="\r\nauthorization: Bearer c\r\n\r\n"),
        head("Bearer a", front=f"{FRONT}\nAuthorization: Bearer c"),
        head("Bearer a", back="\r\n folded\r\n\r\n"),
        head("Bearer a", back="\r\n\tfolded\r\n\r\n"),
        head("Bearer c"),
        head("Bearer a").replace(HEADER, b"\r\nauthorization: "),
    ],
)
def test_head_with_a_doubtful_header_is_remembered_as_a_whole(data: bytes) -> None:
    """Two headers, a folded line, a header that is not the one that was verified."""
    scene = Scene()
    assert scene.note("Bearer a", data=data) is None
    assert scene.find(data) is None


def test_two_headers_are_no_known_login() -> None:
    scene = Scene()
    assert scene.note("Bearer a", more=("Bearer c",)) is None


def test_header_behind_the_end_of_a_head_counts_for_nothing() -> None:
    """The rest of two requests, or of one and a half, would be the head of one."""
    scene = Scene()
    key = scene.note("Bearer a", data=head("Bearer a", back="\r\n\r\n"))
    assert key is not None
    behind = f"{FRONT}\r\n\r\nAuthorization: Bearer a\r\n".encode()
    assert scene.find(behind) is None
    found = scene.find(behind + b"\r\n")
    assert found is None or found[0] != key


def test_long_header_is_known_by_a_hash() -> None:
    scene, login = Scene(), f"Bearer {'x' * SHORT}"
    scene.rights[login] = "dev"
    assert scene.note(login) == scene.note("Bearer a")
    assert scene.find(head(login)) is not None
    assert scene.find(head(f"{login}x")) is None
    assert not any(login.encode() in mark for _, mark in scene.logins.known)


def test_closed_logins_know_nobody() -> None:
    scene = Scene()
    scene.note("Bearer a")
    scene.logins.close()
    scene.note("Bearer a")
    assert scene.find(head("Bearer a")) is None


def test_known_logins_are_bounded() -> None:
    """The oldest ones are forgotten; one that is verified again is the latest."""
    scene = Scene()
    scene.logins._limit = 20 * OVERHEAD
    for number in range(20):
        scene.rights[f"Bearer {number}"] = "dev"
        scene.note(f"Bearer {number}")
        if number % 5 == 0:
            scene.note("Bearer 0")
    assert scene.find(head("Bearer 0")) is not None
    assert scene.find(head("Bearer 1")) is None
    assert scene.logins._size == sum(each.size for each in scene.logins.known.values()) <= 20 * OVERHEAD
