"""Uses and pins of several mirrors in one bucket."""

import pytest

from mirror.oci.digest import Digest
from mirror.shared.errors import TierError
from mirror.shared.interfaces import StoredText
from mirror.shared.memory import MemoryObjects
from mirror.shared.upkeep.ledger import FOLD_HOURS, PIN_SECONDS, REMEMBERED_HOURS, UpkeepLedger
from mirror.shared.upkeep.marks import mark_of
from mirror.shared.upkeep.plan import HOUR

A, B = mark_of(Digest.of(b"a")), mark_of(Digest.of(b"b"))
START = 1000


async def test_ledger_folds_hours_that_are_over_and_forgets_old_ones() -> None:
    """Each hour of all mirrors becomes one object, with the same uses; after a month it is gone."""
    objects = MemoryObjects()
    ledger = UpkeepLedger(objects)
    for number in range(5):
        await ledger.write_uses(f"m{number}", START, {A} if number else {A, B})
    await ledger.write_uses("m1", START + FOLD_HOURS, {A})
    fresh = await ledger.read((START + 1) * HOUR)
    assert fresh.used[A] == (START + 1) * HOUR
    assert fresh.used[B] == (START + 1) * HOUR
    now = (START + FOLD_HOURS + 1) * HOUR
    for reader in (ledger, ledger, UpkeepLedger(objects)):
        found = await reader.read(now)
        assert (found.used[A], found.used[B]) == (now, (START + 1) * HOUR)
    assert sorted(objects._objects) == [f"uses/{START}/all-0", f"uses/{START + FOLD_HOURS}/m1-0"]
    await ledger.write_uses("late", START, {B})
    await ledger.read(now)
    assert sorted(objects._objects) == [f"uses/{START}/all-0", f"uses/{START + FOLD_HOURS}/m1-0"]
    assert (await ledger.read((START + REMEMBERED_HOURS + 10) * HOUR)).used == {}
    assert objects._objects == {}


async def test_ledger_loses_no_uses_to_another_mirror_that_folds_at_once() -> None:
    """The second one, whose list is old, gives up, and folds nothing without what the first has taken."""
    objects = MemoryObjects()
    await UpkeepLedger(objects).write_uses("one", START, {A})
    now = (START + FOLD_HOURS + 1) * HOUR

    class Late(MemoryObjects):
        """The same objects; the other mirror folds while a list is on its way."""

        async def read(self, key: str) -> StoredText | None:
            await UpkeepLedger(objects).read(now)
            return await objects.read(key)

    late = Late()
    late._objects = objects._objects
    with pytest.raises(TierError, match="another mirror tidies up"):
        await UpkeepLedger(late).read(now)
    assert (await UpkeepLedger(objects).read(now)).used == {A: (START + 1) * HOUR}


async def test_ledger_has_the_pins_of_all_mirrors_until_they_are_old() -> None:
    """A mirror's pins replace what it had; one that is gone for a month keeps nothing."""
    now = 1000.0
    objects = MemoryObjects(lambda: now)
    ledger = UpkeepLedger(objects)
    many = {number.to_bytes(8, "big") for number in range(70_000)}
    await ledger.write_pins("one", many)
    await ledger.write_pins("two", {B})
    assert (await ledger.read(now)).pinned == many | {B}
    await ledger.write_pins("one", {A})
    assert (await ledger.read(now)).pinned == {A, B}
    await ledger.write_pins("one", ())
    assert (await ledger.read(now)).pinned == {B}
    assert (await ledger.read(now + PIN_SECONDS + 1)).pinned == set()


async def test_ledger_reads_no_pins_of_a_later_version_as_none() -> None:
    """A version that cannot read the pins removes nothing; foreign keys stay."""
    objects = MemoryObjects()
    ledger = UpkeepLedger(objects)
    await objects.write("uses/later/x", b"?")
    await objects.write("pins/later.version", b"?")
    assert (await ledger.read(1000.0)).pinned == set()
    assert len(objects._objects) == 2
    await objects.write("pins/one-0", b"not marks")
    with pytest.raises(TierError, match="nothing is removed"):
        await ledger.read(1000.0)
