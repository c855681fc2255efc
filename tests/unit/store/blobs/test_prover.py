"""The prover: which blobs it verifies, when, and how often."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs import prover
from mirror.store.blobs.prover import PendingProof, Proof, ProofReason, Prover, hold_seconds
from mirror.store.cache_dir import CacheDirectory
from mirror.util.tasks import Tasks
from tests.unit.store.blobs.test_blobs import file_of
from tests.unit.store.test_eviction import put

DATA = [bytes([number]) * 300_000 for number in range(4)]
DIGESTS = [Digest.of(each) for each in DATA]
CLIENT, OTHER = "192.0.2.1", "192.0.2.2"


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[CacheDirectory]:
    def opened() -> CacheDirectory:
        made = CacheDirectory(tmp_path / "cache")
        for data in DATA:
            put(made, tmp_path, data)
        made.blobs.close()
        return made

    made = await asyncio.to_thread(opened)
    yield made
    made.close()


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    owner = Tasks()
    yield owner
    await owner.close()


def prover_of(folder: CacheDirectory, tasks: Tasks) -> tuple[Prover, list[Proof]]:
    proofs: list[Proof] = []
    return Prover(folder.blobs, folder.proofs, tasks, proofs.append), proofs


async def idle(tasks: Tasks) -> None:
    while running := list(tasks._running):
        await asyncio.wait(running)


def corrupt(folder: CacheDirectory, digest: Digest) -> None:
    path = file_of(folder.path, digest)
    path.chmod(0o600)
    path.write_bytes(b"9" * 300_000)


async def test_prover_proves_a_blob_that_is_asked_for_again(folder: CacheDirectory, tasks: Tasks) -> None:
    """Only once it was sent, and once for all who ask; a wrong one is a miss."""
    made, proofs = prover_of(folder, tasks)
    right, wrong, *_ = DIGESTS
    await asyncio.to_thread(corrupt, folder, wrong)
    assert not made.note_use(right, CLIENT)
    for digest in (right, wrong):
        made.note_sent(digest, CLIENT)
        assert [made.note_use(digest, CLIENT) for _ in range(3)] == [True] * 3
    await idle(tasks)
    retried = [each for each in proofs if each.reason is ProofReason.RETRY]
    assert retried == [Proof(right, ProofReason.RETRY, True), Proof(wrong, ProofReason.RETRY, False)]
    assert not made.note_use(right, CLIENT)
    found = await asyncio.to_thread(lambda: (folder.blobs.has(right), folder.blobs.has(wrong)))
    assert found == (True, False)


async def test_prover_takes_no_other_client_and_no_part_for_a_retry(
    folder: CacheDirectory, tasks: Tasks
) -> None:
    """A popular blob is not hashed for its next client, who does not wait for the proof of a retry either."""
    made, proofs = prover_of(folder, tasks)
    made.note_sent(DIGESTS[0], CLIENT)
    assert [made.note_use(DIGESTS[0], client) for client in (OTHER, None)] == [False, False]
    assert not made.is_pending(DIGESTS[0])
    assert made.note_use(DIGESTS[0], CLIENT)
    assert (made.is_pending(DIGESTS[0]), made.note_use(DIGESTS[0], OTHER)) == (True, False)
    await idle(tasks)
    assert [each.reason for each in proofs] == [ProofReason.RETRY]


async def test_prover_puts_retries_before_daily_proofs(
    folder: CacheDirectory, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers wait for a retry; no reader waits for the blobs of the day, which are proven once."""
    monkeypatch.setattr(prover, "USE_SECONDS", -1.0)
    made, proofs = prover_of(folder, tasks)
    monkeypatch.undo()
    monkeypatch.setattr(Prover, "_is_recent", lambda *_: False)
    for digest in DIGESTS[:3]:
        assert not made.note_use(digest, CLIENT)
    made.note_sent(DIGESTS[3], CLIENT)
    assert made.note_use(DIGESTS[3], CLIENT)
    await idle(tasks)
    assert (proofs[0].digest, {each.digest for each in proofs}) == (DIGESTS[3], set(DIGESTS))
    assert all(each.right for each in proofs)


async def test_prover_skips_what_was_verified_less_than_a_day_ago(
    folder: CacheDirectory, tasks: Tasks
) -> None:
    """An adoption follows a verification."""
    made, proofs = prover_of(folder, tasks)
    for digest in DIGESTS:
        made.note_use(digest, CLIENT)
    await idle(tasks)
    assert proofs == []


async def test_prover_queue_is_bounded(
    folder: CacheDirectory, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob that finds the queue full is not proven, and not waited for."""
    monkeypatch.setattr(prover, "QUEUE", 2)
    made, proofs = prover_of(folder, tasks)
    for digest in DIGESTS:
        made.note_sent(digest, CLIENT)
    assert [made.note_use(digest, CLIENT) for digest in DIGESTS] == [True, True, False, False]
    await idle(tasks)
    assert len(proofs) == 2


async def test_prover_says_nothing_of_a_blob_that_is_gone(folder: CacheDirectory, tasks: Tasks) -> None:
    """Evicted since it was asked for: neither right nor wrong."""
    made, proofs = prover_of(folder, tasks)
    made.note_sent(gone := Digest.of(b"gone"), CLIENT)
    assert made.note_use(gone, CLIENT)
    await idle(tasks)
    assert (proofs, made.is_pending(gone)) == ([], False)


async def test_pending_proof_is_waited_for_a_limited_time() -> None:
    """A proof that takes longer delays no honest client further."""

    async def never() -> bool:
        raise AssertionError

    assert await PendingProof(lambda: True, never, seconds=0.0).wait()


def test_pending_proof_of_a_large_blob_is_waited_for_longer() -> None:
    """The time is that of a slow disk, and less than clients wait for bytes."""
    gibibyte = 1024**3
    assert hold_seconds(0) == 5.0
    assert 5.0 + gibibyte / 100e6 < hold_seconds(gibibyte) < 30.0
    assert hold_seconds(1000 * gibibyte) == 120.0


async def test_pending_proof_of_another_clients_retry_is_not_waited_for() -> None:
    """The result counts if the proof ends in time."""

    async def wrong() -> bool:
        return True

    assert await PendingProof(lambda: True, wrong, seconds=0.0).wait()
    assert not await PendingProof(lambda: False, wrong, seconds=0.0).wait()
