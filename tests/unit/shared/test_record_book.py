"""Words of upstreams between mirrors: two engines, either of which may fail."""

import asyncio

import pytest

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.shared.bucket_records import MISSING_SECONDS, BucketRecords
from mirror.shared.engines import Engines
from mirror.shared.errors import TierError, TierFault
from mirror.shared.keys import MISSING
from mirror.shared.memory import MemoryLeases, MemoryObjects, MemoryRecords, MemoryTier
from mirror.shared.record_book import (
    AHEAD_SECONDS,
    MAX_WAITING,
    REWRITE_SECONDS,
    RecordBook,
)
from mirror.shared.tier import SharedTier
from mirror.shared.upstream_word import Seal, UpstreamWord
from mirror.util.tasks import Tasks
from tests.unit.shared.test_tier import fit, started

SEAL = Seal("a-secret-of-all-mirrors")
WORD = UpstreamWord(1000.0, Digest.of(b"x"), 1)


class Hanging(MemoryRecords):
    """A coordinator that answers nothing."""

    async def get(self, key: str) -> bytes | None:
        await asyncio.Event().wait()
        return None


class Failing(MemoryRecords):
    """A coordinator that fails."""

    async def put(self, key: str, data: bytes, seconds: float) -> None:
        raise TierError(TierFault.UNREACHABLE, "the coordinator is full")


class Books:
    """A book over engines in memory, whose clock the test sets."""

    def __init__(self, tasks: Tasks, recent: MemoryRecords | None) -> None:
        self.now = 1000.0
        self.objects, self.recent, self.tasks = MemoryObjects(), recent, tasks
        records = BucketRecords(self.objects)
        missing = BucketRecords(self.objects, MISSING)
        self.engines = Engines("s3://b", MemoryTier(), MemoryLeases(), fit, records, recent, missing=missing)
        self.tier = SharedTier(self.engines, 0.05, Metrics())

    async def book(self) -> RecordBook:
        await started(self.tier)
        return RecordBook(self.tier, self.engines, SEAL, self.tasks, lambda: self.now)


async def test_book_has_the_newest_word_and_the_bucket_what_outlives_it(tasks: Tasks) -> None:
    """A word that is no news goes to the bucket once an hour; what the coordinator forgot is found there."""
    books = Books(tasks, MemoryRecords())
    book = await books.book()
    for later in (0.0, 10.0, REWRITE_SECONDS + 1):
        books.now = 1000.0 + later
        book.add("tag/a", UpstreamWord(books.now, WORD.digest, 1))
        await book.wait_written()
        found = await book.find("tag/a")
        assert found is not None
        assert found.confirmed == books.now
    assert books.objects._objects["records/tag/a"].version == "2"
    assert books.recent is not None
    books.recent._texts.clear()
    assert await book.find("tag/a") == found
    await books.tier.close()


async def test_book_keeps_no_word_for_long_of_a_tag_that_there_never_was(tasks: Tasks) -> None:
    """A client may ask for any name: the coordinator forgets it soon, and the bucket has what ended alone."""
    now = 0.0
    books = Books(tasks, MemoryRecords(lambda: now))
    book = await books.book()
    book.add("tag/ended", UpstreamWord(books.now, WORD.digest, 1))
    await book.wait_written()
    books.now += 1
    for key in ("tag/ended", "tag/never"):
        book.add(key, UpstreamWord(books.now))
        await book.wait_written()
        assert await book.find(key) == UpstreamWord(books.now)
    assert list(books.objects._objects) == ["missing/tag/ended"]
    now += MISSING_SECONDS + 1
    assert await book.find("tag/never") is None
    assert await book.find("tag/ended") == UpstreamWord(books.now)
    await books.tier.close()


async def test_book_goes_on_without_its_coordinator(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs is waited for once; one that fails costs no word in the bucket."""
    monkeypatch.setattr("mirror.shared.health.FIRST_PAUSE", 3600.0)  # nor is it asked again meanwhile
    books = Books(tasks, Hanging())
    book = await books.book()
    book.add("tag/a", WORD)
    await book.wait_written()
    assert await book.find("tag/a") == WORD
    assert not books.tier.coordinated
    assert await book.find("tag/a") == WORD  # at once: the coordinator is not asked
    await books.tier.close()
    books = Books(tasks, Failing())
    book = await books.book()
    book.add("tag/b", WORD)
    await book.wait_written()
    assert await book.find("tag/b") == WORD
    await books.tier.close()


async def test_book_without_a_coordinator_has_every_word_in_the_bucket(tasks: Tasks) -> None:
    """A confirmation is news then."""
    books = Books(tasks, None)
    book = await books.book()
    for _ in range(3):
        books.now += 1
        book.add("tag/a", UpstreamWord(books.now))
        await book.wait_written()
    found = await book.find("tag/a")
    assert found == UpstreamWord(books.now)
    assert list(books.objects._objects) == ["missing/tag/a"]  # which upkeep removes soon
    await books.tier.close()


async def test_book_has_a_tag_that_is_there_again(tasks: Tasks) -> None:
    """The newest word counts, though the older one that there is none stays a while."""
    books = Books(tasks, None)
    book = await books.book()
    words = [UpstreamWord(books.now + later, digest) for later, digest in enumerate((WORD.digest, None) * 2)]
    for word in words:
        books.now = word.confirmed
        book.add("tag/a", word)
        await book.wait_written()
        assert await book.find("tag/a") == word
    await books.tier.close()


async def test_book_ends_no_tag_that_was_confirmed_later(tasks: Tasks) -> None:
    """A word that there is no such tag has waited, while another mirror was told that there is one again."""
    books = Books(tasks, None)
    book = await books.book()
    newer = UpstreamWord(books.now, WORD.digest, 1)
    book.add("tag/a", newer)
    await book.wait_written()
    late = RecordBook(books.tier, books.engines, SEAL, tasks, lambda: books.now)
    late.add("tag/a", UpstreamWord(books.now - 5))
    await late.wait_written()
    assert await book.find("tag/a") == newer
    assert list(books.objects._objects) == ["records/tag/a"]
    await books.tier.close()


async def test_book_believes_no_word_of_the_future(tasks: Tasks) -> None:
    """A clock that is a little ahead makes no word newer than now, and one that is far ahead is ignored."""
    books = Books(tasks, None)
    book = await books.book()
    book.add("tag/near", UpstreamWord(books.now + 10))
    book.add("tag/far", UpstreamWord(books.now + AHEAD_SECONDS + 1))
    await book.wait_written()
    assert await book.find("tag/near") == UpstreamWord(books.now)
    assert await book.find("tag/far") is None
    await books.tier.close()


async def test_book_keeps_a_bounded_number_of_words_to_write(tasks: Tasks) -> None:
    """While nothing can be written, the oldest are given up."""
    books = Books(tasks, None)
    book = await books.book()
    for number in range(MAX_WAITING + 5):
        book.add(f"tag/{number}", WORD)
    assert len(book._waiting) == MAX_WAITING
    assert "tag/4" not in book._waiting
    book._waiting.clear()
    await book.wait_written()
    await books.tier.close()
