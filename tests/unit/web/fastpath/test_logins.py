"""Known logins: the same head for clients with the same rights, and no head for anybody else."""

import math

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from mirror.access.identity import Identity
from mirror.access.policy import EVERYBODY, ConnectionScope
from mirror.web.fastpath.logins import HEADER, KNOWN_SECONDS, SHORT, KnownLogins
from mirror.web.request_log import RequestRecord

PATH = "/v2/x/manifests/1"
FRONT, BACK = f"GET {PATH} HTTP/1.1\r\nHost: m", "\r\nAccept: */*\r\n\r\n"


def head(login: str, front: str = FRONT, back: str = BACK) -> bytes:
    return f"{front}\r\nAuthorization: {login}{back}".encode()


class Scene:
    """Known logins with a clock and an epoch; `rights` by the login of a request."""

    def __init__(self) -> None:
        self.now = 0.0
        self.epoch = 0
        self.rights: dict[str, object] = {"Bearer a": "dev", "Bearer b": "dev", "Bearer c": "ops"}
        self.logins = KnownLogins(lambda: self.now, lambda: self.epoch)
        self.logins.rights_of = lambda record: self.rights.get(record.request.headers["Authorization"])

    def note(
        self,
        login: str,
        *,
        data: bytes = b"",
        scope: ConnectionScope = EVERYBODY,
        seconds: float = math.inf,
        more: tuple[str, ...] = (),
    ) -> object:
        headers = CIMultiDict([("Authorization", each) for each in (login, *more)])
        record = RequestRecord(make_mocked_request("GET", PATH, headers=headers), 0, self.epoch)
        record.identity, record.has_login = Identity("127.0.0.1", (f"user:{login}",)), True
        record.identity_ttl = seconds
        return self.logins.note(scope, data or head(login), record)


def test_clients_with_the_same_rights_share_a_key() -> None:
    scene = Scene()
    keys = [scene.note(f"Bearer {each}") for each in "abc"]
    assert keys[0] == keys[1] != keys[2] is not None
    for login, key in zip("abc", keys, strict=True):
        found = scene.logins.find(EVERYBODY, head(f"Bearer {login}"))
        assert found is not None
        assert (found[0], found[1].names) == (key, (f"user:Bearer {login}",))
        assert found[1].shown == f'["user:Bearer {login}"]'


def test_login_is_known_to_the_scope_that_showed_it() -> None:
    """A certificate, or another network, is a part of what a client has proven."""
    scene = Scene()
    key, other = scene.note("Bearer a"), scene.note("Bearer a", scope=("cert:x",))
    assert key != other
    assert scene.logins.find(("cert:y",), head("Bearer a")) is None


def test_unknown_login_is_not_found() -> None:
    scene = Scene()
    assert scene.logins.find(EVERYBODY, head("Bearer a")) is None
    scene.note("Bearer a")
    assert scene.logins.find(EVERYBODY, head("Bearer b")) is None
    assert scene.logins.find(EVERYBODY, head("Bearer aa")) is None
    assert scene.logins.find(EVERYBODY, f"{FRONT}{BACK}".encode()) is None


def test_login_without_shared_rights_is_not_known() -> None:
    scene = Scene()
    assert scene.note("Bearer unknown") is None
    assert scene.logins.find(EVERYBODY, head("Bearer unknown")) is None


def test_login_ends_with_its_term_and_with_a_change_of_rights() -> None:
    scene = Scene()
    for seconds in (5.0, math.inf):
        scene.note("Bearer a", seconds=seconds)
        scene.now += min(seconds, KNOWN_SECONDS) - 0.1
        assert scene.logins.find(EVERYBODY, head("Bearer a")) is not None
        scene.now += 0.1
        assert scene.logins.find(EVERYBODY, head("Bearer a")) is None
    scene.note("Bearer a")
    scene.epoch += 1
    assert scene.logins.find(EVERYBODY, head("Bearer a")) is None


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
    assert scene.logins.find(EVERYBODY, data) is None


def test_two_headers_are_no_known_login() -> None:
    scene = Scene()
    assert scene.note("Bearer a", more=("Bearer c",)) is None


def test_header_behind_the_end_of_a_head_counts_for_nothing() -> None:
    """The rest of two requests, or of one and a half, would be the head of one."""
    scene = Scene()
    key = scene.note("Bearer a", data=head("Bearer a", back="\r\n\r\n"))
    assert key is not None
    behind = f"{FRONT}\r\n\r\nAuthorization: Bearer a\r\n".encode()
    assert scene.logins.find(EVERYBODY, behind) is None
    found = scene.logins.find(EVERYBODY, behind + b"\r\n")
    assert found is None or found[0] != key


def test_long_header_is_known_by_a_hash() -> None:
    scene, login = Scene(), f"Bearer {'x' * SHORT}"
    scene.rights[login] = "dev"
    assert scene.note(login) == scene.note("Bearer a")
    assert scene.logins.find(EVERYBODY, head(login)) is not None
    assert scene.logins.find(EVERYBODY, head(f"{login}x")) is None
    assert not any(login.encode() in mark for (_, mark), _ in scene.logins._logins.items())


def test_closed_logins_know_nobody() -> None:
    scene = Scene()
    scene.note("Bearer a")
    scene.logins.close()
    scene.note("Bearer a")
    assert scene.logins.find(EVERYBODY, head("Bearer a")) is None
