"""Upload sessions: offsets, hashes, locks, limits and the end."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.store.partial import upload, upload_claims
from mirror.store.partial.upload import (
    DiskFull,
    TooManyUploads,
    UploadInUse,
    UploadStore,
    UploadUnknown,
    WrongDigest,
)

APP, OTHER, ELSEWHERE = Repository("office", "app"), Repository("office", "other"), Repository("lab", "app")
DATA = bytes(range(256)) * 40


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path / "uploads")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_upload_in_pieces_is_verified_and_ready_for_adoption(store: UploadStore, algorithm: str) -> None:
    session = store.create(APP, algorithm)
    assert session.offset == 0
    assert session.append([DATA[:10], memoryview(DATA)[10:5000]]) == 5000
    assert session.append([bytearray(DATA[5000:])]) == len(DATA)
    verified = session.finish(Digest.of(DATA, algorithm))
    session.release()
    assert verified.path.read_bytes() == DATA
    assert (verified.size, verified.digest) == (len(DATA), Digest.of(DATA, algorithm))
    assert os.stat(store.folder).st_mode & 0o777 == 0o700
    assert os.stat(verified.path).st_mode & 0o777 == 0o600


def test_upload_without_a_byte_has_the_digest_of_nothing(store: UploadStore) -> None:
    session = store.create(APP)
    assert session.finish(Digest.of(b"")).size == 0
    session.release()


def test_upload_with_another_digest_stays(store: UploadStore) -> None:
    session = store.create(APP)
    session.append([DATA])
    with pytest.raises(WrongDigest) as wrong:
        session.finish(Digest.of(b"other"))
    assert wrong.value.found == Digest.of(DATA)
    assert session.append([b"!"]) == len(DATA) + 1
    assert session.finish(Digest.of(DATA + b"!")).size == len(DATA) + 1
    session.release()


def test_upload_can_be_finished_with_another_algorithm_than_it_began_with(store: UploadStore) -> None:
    session = store.create(APP)
    session.append([DATA])
    assert session.finish(Digest.of(DATA, "sha512")).digest.algorithm == "sha512"
    session.release()


def test_upload_goes_on_in_another_process(store: UploadStore) -> None:
    """The hash of the first part is in this process, and its bytes are in the file."""
    session = store.create(APP)
    session.append([DATA[:100]])
    session.release()
    other = UploadStore(store.folder).open(APP, session.id)
    assert other.offset == 100
    other.append([DATA[100:]])
    other.release()
    again = store.open(APP, session.id)
    assert again.finish(Digest.of(DATA)).size == len(DATA)
    again.release()


def test_upload_keeps_its_running_hash_between_requests(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.create(APP)
    session.append([DATA[:100]])
    session.release()
    session = store.open(APP, session.id)
    session.append([DATA[100:]])
    monkeypatch.setattr(os, "pread", lambda *_: pytest.fail("the file was read again"))
    assert session.finish(Digest.of(DATA))
    session.release()


def test_upload_is_known_in_its_own_repository_only(store: UploadStore) -> None:
    session = store.create(APP)
    session.release()
    for repository in (OTHER, ELSEWHERE):
        with pytest.raises(UploadUnknown):
            store.open(repository, session.id)
    store.open(APP, session.id).release()


@pytest.mark.parametrize(
    "text", ["", "x", "../" * 10 + "ab", "a" * 32, "a" * 31 + "/", "a" * 33, "a" * 31 + "\0"]
)
def test_upload_of_another_name_is_unknown(store: UploadStore, text: str) -> None:
    with pytest.raises(UploadUnknown):
        store.open(APP, text)


def test_upload_that_is_appended_to_is_in_use(store: UploadStore) -> None:
    session = store.create(APP)
    with pytest.raises(UploadInUse):
        UploadStore(store.folder).open(APP, session.id)
    session.release()
    session.release()  # a second time changes nothing
    store.open(APP, session.id).release()
    with pytest.raises(StoreError):
        session.append([b"late"])


def test_upload_that_was_cancelled_is_unknown(store: UploadStore) -> None:
    session = store.create(APP)
    session.append([DATA])
    session.cancel()
    session.release()
    with pytest.raises(UploadUnknown):
        store.open(APP, session.id)
    assert store.totals() == (0, 0)


def test_uploads_of_a_registry_are_bounded(store: UploadStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for repository in (APP, OTHER):
        store.create(repository, most=2).release()
    with pytest.raises(TooManyUploads):
        store.create(APP, most=2)
    store.create(ELSEWHERE, most=2).release()
    monkeypatch.setattr(upload_claims, "IDLE_SECONDS", -1.0)  # old at once
    store.create(APP, most=2).release()
    assert store.totals() == (3, 0)


def test_uploads_expire_unless_they_are_used(store: UploadStore) -> None:
    old, used, other = store.create(APP), store.create(APP), store.create(ELSEWHERE)
    for session in (old, other):
        session.append([DATA])
        session.release()
    later = time.time() + 10
    assert store.expire("office", time.time() - 10) == []
    assert [name.partition("-")[2] for name in store.expire("office", later)] == [f"{old.id}.sha256"]
    assert store.totals() == (2, len(DATA))
    used.release()


def test_foreign_files_are_no_uploads(store: UploadStore) -> None:
    store.create(APP).release()
    (store.folder / "notes.txt").write_text("mine")
    assert store.totals() == (1, 0)
    assert len(store.expire("office", time.time() + 10)) == 1
    assert (store.folder / "notes.txt").exists()


@pytest.fixture
def small_files() -> Iterator[int]:
    """Limit the size of this process's files, and give the limit in bytes."""
    before, limit = resource.getrlimit(resource.RLIMIT_FSIZE), 4096
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_upload_onto_a_full_disk_keeps_what_was_written(
    store: UploadStore, small_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's limit on files stands for a full disk: both end a write in the middle."""
    monkeypatch.setattr(upload, "NO_SPACE", frozenset({errno.EFBIG}))
    session = store.create(APP)
    session.append([DATA[:1000]])
    with pytest.raises(DiskFull) as full:
        session.append([DATA[1000:]])
    assert full.value.written == small_files - 1000
    assert session.offset == small_files
    assert session.finish(Digest.of(DATA[:small_files]))
    session.release()


KILLED = """
import os, signal, sys
from mirror.oci.reference import Repository
from mirror.store.partial.upload import UploadStore
from pathlib import Path
session = UploadStore(Path(sys.argv[1])).create(Repository("office", "app"))
session.append([b"x" * 1000])
print(session.id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_upload_survives_kill(store: UploadStore) -> None:
    command = [sys.executable, "-c", KILLED, str(store.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    session = store.open(APP, done.stdout.strip())
    session.append([b"y"])
    assert session.finish(Digest.of(b"x" * 1000 + b"y")).size == 1001
    session.release()
