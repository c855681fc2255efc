"""Revocations of tokens in the bucket: what other mirrors believe, and what they do not."""

from collections.abc import AsyncIterator

import pytest

from mirror.access.tokens import digest_of
from mirror.shared.errors import TierError, TierFault
from mirror.shared.interfaces import NamedObject, StoredText
from mirror.shared.memory import MemoryObjects
from mirror.shared.upkeep import revocations
from mirror.shared.upkeep.revocations import Revocations, revocation_key
from mirror.shared.upstream_word import Seal

SEAL = Seal("a-secret-of-all-mirrors")
ONE, TWO, THREE = (digest_of(each) for each in ("one", "two", "three"))


async def test_revocation_of_one_mirror_is_found_by_another() -> None:
    """Only of tokens that this one has; neither name nor digest stands in the bucket."""
    objects = MemoryObjects()
    assert await Revocations(objects, SEAL).sync([ONE, TWO], [THREE]) == set()
    there = Revocations(objects, SEAL)
    assert await there.sync([], [TWO, THREE]) == {TWO}
    assert await there.sync([], [TWO, THREE]) == {TWO}
    text = repr(objects._objects)
    assert ONE not in text
    assert TWO not in text


async def test_revocation_that_no_mirror_has_written_is_none() -> None:
    """Another user of the bucket revokes nothing: not by text, another's seal, nor one of another token."""
    objects = MemoryObjects()
    await Revocations(objects, Seal("another-secret-of-others")).sync([ONE], [])
    await Revocations(objects, SEAL).sync([THREE], [])
    genuine = await objects.read(revocation_key(THREE))
    assert genuine is not None
    await objects.write(revocation_key(TWO), genuine.data)
    for text in (b"", b"1 revoked\n", b"\xff" * 100, b"0" * 1000):
        await objects.write(revocation_key(digest_of("four")), text)
        found = await Revocations(objects, SEAL).sync([], [ONE, TWO, THREE, digest_of("four")])
        assert found == {THREE}


async def test_revocation_that_was_removed_or_overwritten_is_written_again() -> None:
    """Each mirror that knows it does so; it is written once."""
    objects = MemoryObjects()
    await Revocations(objects, SEAL).sync([ONE], [])
    await objects.delete(revocation_key(ONE))
    await objects.write(revocation_key(TWO), b"overwritten")
    await Revocations(objects, SEAL).sync([ONE, TWO], [])
    assert await Revocations(objects, SEAL).sync([], [ONE, TWO]) == {ONE, TWO}
    before = dict(objects._objects)
    await Revocations(objects, SEAL).sync([ONE, TWO], [])
    assert objects._objects == before


async def test_revocation_that_was_replaced_while_mirrors_run_is_written_again() -> None:
    """A mirror reads again what is another object now."""
    now = 0.0
    objects = MemoryObjects(lambda: now)
    mine = Revocations(objects, SEAL)
    for _ in range(2):
        await mine.sync([ONE], [])
        now += 10.0
    await objects.write(revocation_key(ONE), b"overwritten")
    await mine.sync([ONE], [])
    assert await Revocations(objects, SEAL).sync([], [ONE]) == {ONE}


class ReadOnly(MemoryObjects):
    """A bucket that takes nothing."""

    async def write(self, key: str, data: bytes) -> None:
        raise TierError(TierFault.REFUSED, "read only")


async def test_revocation_of_another_mirror_is_found_where_nothing_can_be_written() -> None:
    """A token that others have revoked is refused, whatever becomes of this mirror's own revocations."""
    objects = ReadOnly()
    others = MemoryObjects()
    await Revocations(others, SEAL).sync([ONE], [])
    objects._objects = others._objects
    assert await Revocations(objects, SEAL).sync([TWO], [ONE]) == {ONE}


async def test_revocation_is_found_beside_very_many_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the list is read; the other names are asked for, some at a time, each in its turn."""
    monkeypatch.setattr(revocations, "MOST_LISTED", 10)
    monkeypatch.setattr(revocations, "ASKED", 3)
    objects = Counted()
    for number in range(50):
        await objects.write(f"revoked/0{number}", b"of another user")
    tokens = [digest_of(f"token {number}") for number in range(10)]
    mine = Revocations(objects, SEAL)
    for _ in range(4):  # ten names, three at a time
        await mine.sync(tokens, [])
    assert {revocation_key(each) for each in tokens} <= objects._objects.keys()
    there, gone, most = Revocations(objects, SEAL), set(), 0
    for _ in range(4):
        objects.named = objects.reads = 0
        gone |= await there.sync([], [*tokens, ONE])
        most = max(most, objects.named, objects.reads)
    assert gone == set(tokens)
    assert most <= 10
    before = dict(objects._objects)
    for _ in range(8):
        await mine.sync(tokens, [])
    assert objects._objects == before
    assert len(mine._genuine) <= len(tokens)


class Counted(MemoryObjects):
    """Objects that count how many names were yielded, and how many were read."""

    named = reads = 0

    async def read(self, key: str) -> StoredText | None:
        self.reads += 1
        return await super().read(key)

    async def names(self, prefix: str) -> AsyncIterator[NamedObject]:
        async for each in super().names(prefix):
            self.named += 1
            yield each
