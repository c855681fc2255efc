"""The journal of pushes, as one process writes it."""

from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Tag
from mirror.store.hosted.push_journal import FILE_BYTES, JOURNALED_BYTES, PushBatch, PushJournal, batches
from mirror.store.hosted.pushes import PushedManifest
from tests.hosting import APP


def pushed(data: bytes) -> PushedManifest:
    named = (Digest.of(b"layer"), Digest.of(b"config", "sha512"))
    return PushedManifest(APP, Digest.of(data), data, OCI_MANIFEST, (Tag("a"), Tag("b")), named)


def test_push_journal_has_all_of_a_push(tmp_path: Path) -> None:
    journal, push = PushJournal(tmp_path), pushed(b"manifest")
    journal.add(7, 1.5, [push, push])
    journal.add(8, 2.5, [push])
    (path,) = (tmp_path / "pushes").iterdir()
    assert list(batches(path.read_bytes())) == [PushBatch(7, 1.5, (push, push)), PushBatch(8, 2.5, (push,))]


def test_push_journal_goes_on_in_another_file(tmp_path: Path) -> None:
    """A manifest that is long is not written twice; a batch has a file that is as long as it needs."""
    journal = PushJournal(tmp_path)
    long = pushed(bytes(JOURNALED_BYTES + 1))
    half = [pushed(bytes([number]) * JOURNALED_BYTES) for number in range(FILE_BYTES // JOURNALED_BYTES // 2)]
    for number in range(3):
        journal.add(number, 0.0, [*half, long])
    journal.add(3, 0.0, half * 3)
    journal.close()
    paths = sorted((tmp_path / "pushes").iterdir())
    found = [[batch.number for batch in batches(path.read_bytes())] for path in paths]
    assert found == [[0], [1], [2], [3]]
    (first,) = batches(paths[0].read_bytes())
    assert [len(each.data) for each in first.pushes] == [*(len(each.data) for each in half), 0]
