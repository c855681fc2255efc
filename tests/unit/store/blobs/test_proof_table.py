"""The proof table: shared by processes, bounded, and wrong at most about whether a proof is due."""

import os
import threading
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.blobs import proof_table
from mirror.store.blobs.proof_table import (
    PROOFS,
    PROVEN_SECONDS,
    RETRY_SECONDS,
    SENT_SLOTS,
    TABLE_BYTES,
    ProofTable,
    lower_priority,
)

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
CLIENT, OTHER = "192.0.2.1", "2001:db8::1"


class Clock:
    now = 1e9

    def __call__(self) -> float:
        return self.now


def test_request_is_a_retry_of_the_client_that_was_sent_the_blob(tmp_path: Path) -> None:
    """A retry is soon, of the same blob, and by the same client. All mappings agree."""
    clock = Clock()
    table, other = (ProofTable(tmp_path / "proofs", clock) for _ in range(2))
    assert not table.is_retry(ONE, CLIENT)
    table.note_sent(ONE, CLIENT)
    assert (other.is_retry(ONE, CLIENT), other.is_retry(TWO, CLIENT)) == (True, False)
    assert not other.is_retry(ONE, OTHER)
    clock.now += RETRY_SECONDS
    assert not table.is_retry(ONE, CLIENT)


def test_proof_holds_for_a_while(tmp_path: Path) -> None:
    """A proof holds from the moment at which it begins, in all mappings."""
    clock = Clock()
    table, other = (ProofTable(tmp_path / "proofs", clock) for _ in range(2))
    assert (table.was_begun(ONE), table.is_pending(ONE)) == (False, False)
    other.begin(ONE)
    assert (table.was_begun(ONE), table.is_pending(ONE)) == (True, True)
    clock.now += 1
    other.finish(ONE)
    assert (table.was_begun(ONE), table.is_pending(ONE)) == (True, False)
    clock.now += PROVEN_SECONDS
    assert not table.was_begun(ONE)


def test_proof_of_a_process_that_died_is_not_waited_for_forever(tmp_path: Path) -> None:
    """Begun and never done: pending no longer than a proof holds."""
    clock = Clock()
    table = ProofTable(tmp_path / "proofs", clock)
    table.begin(ONE)
    clock.now += PROVEN_SECONDS
    assert not table.is_pending(ONE)


def test_clock_that_was_set_back_makes_no_retry(tmp_path: Path) -> None:
    """A moment in the future counts as never."""
    clock = Clock()
    table = ProofTable(tmp_path / "proofs", clock)
    table.note_sent(ONE, CLIENT)
    table.begin(ONE)
    clock.now -= 10
    assert (table.is_retry(ONE, CLIENT), table.was_begun(ONE), table.is_pending(ONE)) == (False, False, False)


def test_proof_table_forgets_a_blob(tmp_path: Path) -> None:
    """After its file was wrong, nothing is known of the next one."""
    table = ProofTable(tmp_path / "proofs")
    table.begin(ONE)
    table.forget(ONE)
    assert not table.was_begun(ONE)


def test_proof_table_has_a_fixed_size(tmp_path: Path) -> None:
    """However many blobs are sent to however many clients; entries with one slot displace each other."""
    table = ProofTable(tmp_path / "proofs")
    for number in range(2 * SENT_SLOTS):
        digest, client = Digest.of(b"%d" % (number % (2 * PROOFS))), f"192.0.2.{number}"
        table.note_sent(digest, client)
        table.begin(digest)
    assert (tmp_path / "proofs").stat().st_size == TABLE_BYTES
    assert (table.is_retry(digest, client), table.was_begun(digest)) == (True, True)


def test_proof_table_of_another_size_is_used_on(tmp_path: Path) -> None:
    """An earlier version's file is shorter, and its entries mean nothing."""
    (tmp_path / "proofs").write_bytes(b"\xff" * 128 * 1024)
    table = ProofTable(tmp_path / "proofs")
    assert not table.is_retry(ONE, CLIENT)
    table.note_sent(ONE, CLIENT)
    assert table.is_retry(ONE, CLIENT)


def test_proof_table_without_a_folder_is_that_of_the_process(tmp_path: Path) -> None:
    """A disk that cannot be written, or that was closed, costs the hint across processes alone."""
    table = ProofTable(tmp_path / "missing" / "proofs")
    table.note_sent(ONE, CLIENT)
    assert table.is_retry(ONE, CLIENT)
    table.close()
    assert not table.is_retry(ONE, CLIENT)


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
