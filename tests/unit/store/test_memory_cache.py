"""The memory cache: never older than the disk."""

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.memory_cache import Content, MemoryCache
from mirror.store.metadata.index import Link, TagEntry

X, Y = Repository("docker.io", "library/x"), Repository("docker.io", "library/y")
DIGEST = Digest.of(b"data")
CONTENT = Content(Link(size=4), b"data")
ENTRY = TagEntry(str(DIGEST), "a", 4, 1.0)


def test_memory_content_belongs_to_its_repository() -> None:
    """The link is part of the content (invariant 5)."""
    memory = MemoryCache(100_000)
    memory.put_content(X, DIGEST, CONTENT, memory.version)
    assert (memory.content(X, DIGEST), memory.content(Y, DIGEST)) == (CONTENT, None)
    memory.forget(X, [DIGEST])
    assert memory.content(X, DIGEST) is None


def test_memory_rejects_a_read_overtaken_by_a_write() -> None:
    """The read began before the write, and arrived after it."""
    memory = MemoryCache(100_000)
    before = memory.version
    memory.forget(Y, [])
    memory.put_content(X, DIGEST, CONTENT, before)
    memory.put_tag(X, Tag("t"), ENTRY, before)
    assert (memory.content(X, DIGEST), memory.tag(X, Tag("t"))) == (None, None)


def test_memory_tags_are_put_and_dropped() -> None:
    """One entry for each tag."""
    memory = MemoryCache(100_000)
    memory.put_tag(X, Tag("t"), ENTRY, memory.version)
    assert memory.tag(X, Tag("t")) == ENTRY
    memory.forget_tag(X, Tag("t"))
    assert memory.tag(X, Tag("t")) is None


def test_memory_is_emptied_by_any_removal() -> None:
    """Everything goes, and so does content that is just being read."""
    epoch = [1]
    memory = MemoryCache(100_000, lambda: epoch[0])
    before = memory.version
    memory.put_tag(X, Tag("t"), ENTRY, before)
    memory.put_content(X, DIGEST, CONTENT, before)
    epoch[0] = 2
    assert (memory.content(X, DIGEST), memory.tag(X, Tag("t"))) == (None, None)
    memory.put_content(X, DIGEST, CONTENT, before)
    assert memory.content(X, DIGEST) is None
    memory.put_content(X, DIGEST, CONTENT, memory.version)
    assert memory.content(X, DIGEST) == CONTENT
