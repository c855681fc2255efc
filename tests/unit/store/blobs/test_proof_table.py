"""The proof table: shared by processes, bounded, and wrong at most about whether a proof is due."""

import os
import threading
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.blobs import proof_table
from mirror.store.blobs.proof_table import (
    PROVEN_SECONDS,
    RETRY_SECONDS,
    SLOT,
    SLOTS,
    ProofTable,
    lower_priority,
)

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")


class Clock:
    now = 1e9

    def __call__(self) -> float:
        return self.now


def test_blob_is_doubtful_after_it_was_sent_until_it_is_proven(tmp_path: Path) -> None:
    """Doubt lasts for a while only, and returns once the proof is old. All mappings agree."""
    clock = Clock()
    table, other = (ProofTable(tmp_path / "proofs", clock) for _ in range(2))
    assert not table.is_doubtful(ONE)
    table.note_sent(ONE)
    assert (other.is_doubtful(ONE), other.is_doubtful(TWO), other.is_pending(ONE)) == (True, False, False)
    other.begin(ONE)
    assert (table.is_doubtful(ONE), table.is_pending(ONE)) == (False, True)
    clock.now += 1
    other.finish(ONE)
    assert (table.is_doubtful(ONE), table.is_pending(ONE)) == (False, False)
    clock.now += PROVEN_SECONDS
    assert table.is_doubtful(ONE)
    clock.now += RETRY_SECONDS
    assert not table.is_doubtful(ONE)


def test_proof_of_a_process_that_died_is_not_waited_for_forever(tmp_path: Path) -> None:
    """Begun and never done: pending no longer than a proof holds."""
    clock = Clock()
    table = ProofTable(tmp_path / "proofs", clock)
    table.begin(ONE)
    clock.now += PROVEN_SECONDS
    assert not table.is_pending(ONE)


def test_clock_that_was_set_back_makes_nothing_doubtful(tmp_path: Path) -> None:
    """A moment in the future counts as never."""
    clock = Clock()
    table = ProofTable(tmp_path / "proofs", clock)
    table.note_sent(ONE)
    table.begin(ONE)
    clock.now -= 10
    assert (table.is_doubtful(ONE), table.is_pending(ONE)) == (False, False)


def test_proof_table_forgets_a_blob(tmp_path: Path) -> None:
    """After its file was wrong, nothing is known of the next one."""
    table = ProofTable(tmp_path / "proofs")
    table.note_sent(ONE)
    table.forget(ONE)
    assert not table.is_doubtful(ONE)


def test_proof_table_has_a_fixed_size(tmp_path: Path) -> None:
    """However many blobs are sent; blobs with one slot displace each other."""
    table = ProofTable(tmp_path / "proofs")
    for number in range(3 * SLOTS):
        table.note_sent(Digest.of(b"%d" % number))
    assert (tmp_path / "proofs").stat().st_size == SLOT.size * SLOTS
    assert table.is_doubtful(Digest.of(b"%d" % (3 * SLOTS - 1)))


def test_proof_table_without_a_folder_is_that_of_the_process(tmp_path: Path) -> None:
    """A disk that cannot be written, or that was closed, costs the hint across processes alone."""
    table = ProofTable(tmp_path / "missing" / "proofs")
    table.note_sent(ONE)
    assert table.is_doubtful(ONE)
    table.close()
    assert not table.is_doubtful(ONE)


def test_priority_is_lowered_for_one_thread() -> None:
    """The thread that proves, and not the event loop's."""
    before, found = os.getpriority(os.PRIO_PROCESS, 0), []

    def work() -> None:
        lower_priority()
        found.append(os.getpriority(os.PRIO_PROCESS, 0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [max(before, proof_table.PRIORITY)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
