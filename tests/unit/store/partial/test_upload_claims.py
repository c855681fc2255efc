"""Open uploads: bytes beside the quotas, numbers and shares, and those that give way."""

import os
import time
from pathlib import Path

import pytest

from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.store.partial import upload_claims
from mirror.store.partial.upload import TooManyUploads, UploadSession, UploadStore, UploadUnknown

APP, OTHER, LAB = Repository("office", "app"), Repository("office", "other"), Repository("lab", "app")


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path / "uploads")


def upload(store: UploadStore, repository: Repository, size: int, unused: float = 0.0) -> UploadSession:
    """Return a session of `size` bytes without a request on it."""
    session = store.create(repository)
    session.append([b"x" * size])
    let_go(store, session, unused)
    return session


def let_go(store: UploadStore, session: UploadSession, unused: float = 0.0) -> None:
    session.release()
    (path,) = store.folder.glob(f"*-{session.id}.*")
    os.utime(path, (time.time() - unused, time.time() - unused))


def is_known(store: UploadStore, repository: Repository, session: UploadSession) -> bool:
    try:
        store.open(repository, session.id).release()
    except UploadUnknown:
        return False
    return True


def test_open_uploads_count_by_registry_and_repository(store: UploadStore) -> None:
    upload(store, APP, 40)
    upload(store, OTHER, 50)
    upload(store, LAB, 1000)
    session = store.create(APP)
    assert session.claim(1, {"office": 90, "office/app": 40}) is None
    assert session.claim(1, {"office": 89, "office/app": 40}) == ("office", 90)
    assert session.claim(1, {"office": 90, "office/app": 39}) == ("office/app", 40)
    session.append([b"x" * 500])  # its own bytes are in what it claims
    assert session.claim(500, {"office": 90}) is None
    session.release()


def test_coming_bytes_of_a_request_count_until_it_ends(store: UploadStore) -> None:
    first, second = store.create(APP), store.create(APP)
    assert first.claim(60, {"office": 40}) is None
    assert second.claim(60, {"office": 40}) == ("office", 60)
    first.append([b"x" * 10])
    first.release()  # the client has left
    assert second.claim(60, {"office": 40}) is None
    second.release()
    with pytest.raises(StoreError):
        second.claim(60, {"office": 40})
    third = store.create(APP)
    assert third.claim(60, {"office": 10}) is None
    third.release()


def test_uploads_of_another_process_count_as_they_are_before_anything_is_refused(store: UploadStore) -> None:
    other = UploadStore(store.folder)
    session = store.create(APP)
    assert session.claim(60, {"office": 40}) is None  # the sizes are remembered now
    foreign = upload(other, APP, 50)
    store.claims._read_at = float("-inf")  # a second has passed
    assert session.claim(60, {"office": 40}) == ("office", 50)
    again = other.open(APP, foreign.id)
    again.cancel()
    again.release()
    store.claims._read_took = 0.0
    assert session.claim(60, {"office": 40}) is None
    session.release()


def test_idle_uploads_give_way_the_oldest_first(store: UploadStore) -> None:
    oldest, old = upload(store, APP, 30, unused=2000), upload(store, OTHER, 30, unused=1000)
    young, lab = upload(store, APP, 30, unused=10), upload(store, LAB, 30, unused=3000)
    session = store.create(APP)
    assert session.claim(60, {"office": 65}) is None
    assert not is_known(store, APP, oldest)
    assert is_known(store, OTHER, old)
    assert session.claim(500, {"office": 20}) == ("office", 60)  # and none is removed for nothing
    assert is_known(store, OTHER, old)
    assert is_known(store, APP, young)
    assert is_known(store, LAB, lab)
    session.release()


def test_upload_with_a_request_on_it_never_gives_way(store: UploadStore) -> None:
    used = store.create(APP)
    used.append([b"x" * 50])
    (path,) = store.folder.iterdir()
    os.utime(path, (0, 0))
    session = store.create(APP)
    assert session.claim(60, {"office": 40}) == ("office", 50)
    assert UploadStore(store.folder).create(APP).claim(60, {"office": 40}) == ("office", 50)
    used.release()
    session.release()


def test_idle_uploads_of_the_repository_with_the_most_give_way_to_new_ones(store: UploadStore) -> None:
    """Each has a byte, so that it is none of those that a client forgot at once."""
    honest = upload(store, OTHER, 1, unused=5000)
    greedy = [upload(store, APP, 1, unused=1000 + number) for number in range(2)]
    store.create(OTHER, most=3).release()
    assert [is_known(store, APP, each) for each in greedy] == [True, False]
    assert is_known(store, OTHER, honest)
    for path in store.folder.iterdir():
        os.utime(path)
    with pytest.raises(TooManyUploads):
        store.create(OTHER, most=3)


def test_one_repository_has_a_share_of_the_uploads(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_claims, "LEAST_SHARE", 2)
    first = upload(store, APP, 1)
    store.create(APP, most=12).release()
    store.create(APP, most=12).release()
    with pytest.raises(TooManyUploads):
        store.create(APP, most=12)
    store.create(OTHER, most=12).release()
    os.utime(next(store.folder.glob(f"*-{first.id}.*")), (0, 0))
    store.create(APP, most=12).release()
    assert not is_known(store, APP, first)


def test_one_client_has_a_share_of_the_uploads(store: UploadStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share is of all its repositories; of the idle uploads only those of the client give way to it."""
    monkeypatch.setattr(upload_claims, "LEAST_SHARE", 2)
    names = [Repository("office", f"app{number}") for number in range(6)]
    others = upload(store, OTHER, 1, unused=5000)
    greedy = [store.create(each, most=12, client="user:greedy") for each in names[:3]]
    for each in greedy:
        each.append([b"x"])
        each.release()
    again = UploadStore(store.folder)  # another worker
    with pytest.raises(TooManyUploads):
        again.create(names[3], most=12, client="user:greedy")
    again.create(names[3], most=12, client="192.0.2.1").release()
    again.create(LAB, most=12, client="user:greedy").release()  # each registry has its own
    os.utime(next(store.folder.glob(f"*-{greedy[1].id}.*")), (0, 0))
    again.create(names[4], most=12, client="user:greedy").release()
    assert [is_known(store, each, session) for each, session in zip(names, greedy, strict=False)] == [
        True,
        False,
        True,
    ]
    assert is_known(store, OTHER, others)


def test_client_with_its_share_takes_no_idle_uploads_of_a_full_repository(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its own give way to it there."""
    monkeypatch.setattr(upload_claims, "LEAST_SHARE", 2)
    honest = [upload(store, APP, 1, unused=1000 + number) for number in range(2)]
    own = store.create(APP, most=12, client="user:greedy")
    own.append([b"x"])
    own.release()
    for number in range(2):
        session = store.create(Repository("office", f"app{number}"), most=12, client="user:greedy")
        session.append([b"x"])
        let_go(store, session, unused=5000)
    with pytest.raises(TooManyUploads, match="client"):
        store.create(APP, most=12, client="user:greedy")
    assert all(is_known(store, APP, each) for each in honest)
    os.utime(next(store.folder.glob(f"*-{own.id}.*")), (0, 0))
    store.create(APP, most=12, client="user:greedy").release()
    assert not is_known(store, APP, own)
    assert all(is_known(store, APP, each) for each in honest)
    assert len(list(store.folder.iterdir())) == 5


def fill(store: UploadStore, client: str, repository: Repository, most: int, unused: float) -> int:
    """Begin uploads until one is refused; return their number."""
    for count in range(most + 1):
        try:
            session = store.create(repository, most=most, client=client)
        except TooManyUploads:
            return count
        session.append([b"x"])
        let_go(store, session, unused)
    raise AssertionError("no bound")


@pytest.mark.parametrize("same", [True, False], ids=["one repository", "several"])
def test_uploads_of_clients_that_act_together_give_way_to_others(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """Four clients have all, and used each a minute ago: one that has fewer gets its share."""
    monkeypatch.setattr(upload_claims, "LEAST_SHARE", 20 if same else 5)
    names = [APP] * 4 if same else [Repository("office", f"app{number}") for number in range(4)]
    for number, each in enumerate(names):
        fill(store, f"192.0.2.{number}", each, 20, unused=60)
    assert len(list(store.folder.iterdir())) == 20
    honest = fill(store, "198.51.100.1", APP if same else OTHER, 20, unused=0)
    assert honest >= 4
    assert len(list(store.folder.iterdir())) == 20
    with pytest.raises(TooManyUploads):  # no client changes places with the next one
        store.create(names[0], most=20, client="192.0.2.0")


def test_uploads_in_use_give_way_to_no_client(store: UploadStore) -> None:
    """A request is on it, or was a moment ago."""
    used = [store.create(APP, most=4, client="192.0.2.1") for _ in range(2)]
    fill(store, "192.0.2.1", APP, 4, unused=0)
    for path in store.folder.iterdir():
        if any(each.id in path.name for each in used):
            os.utime(path, (0, 0))
    with pytest.raises(TooManyUploads):
        store.create(APP, most=4, client="198.51.100.1")
    for each in used:
        each.release()


@pytest.mark.parametrize(
    ("most", "client", "whose"),
    [(8, "192.0.2.2", "registry"), (8, "192.0.2.1", "client"), (1, "192.0.2.2", "repository")],
)
def test_refused_upload_says_who_has_too_many(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch, most: int, client: str, whose: str
) -> None:
    monkeypatch.setattr(upload_claims, "LEAST_SHARE", 4)
    fill(store, "192.0.2.1", OTHER if most > 1 else APP, most, unused=0)
    fill(store, "192.0.2.3", LAB if whose == "client" else Repository("office", "b"), most, unused=0)
    with pytest.raises(TooManyUploads) as refused:
        store.create(APP, most=most, client=client)
    assert refused.value.whose == whose


def test_upload_that_a_request_has_just_left_gives_way_to_no_client(store: UploadStore) -> None:
    """The request may have written nothing for long: a body that stopped, or a question for the offset."""
    session = store.create(APP, most=4, client="192.0.2.1")
    let_go(store, session, unused=60)
    assert fill(store, "192.0.2.1", APP, 4, unused=-60) == 3
    store.open(APP, session.id).release()
    with pytest.raises(TooManyUploads):
        store.create(APP, most=4, client="198.51.100.1")
    assert is_known(store, APP, session)
