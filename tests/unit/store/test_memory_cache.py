"""The copy in memory: never older than the disk."""

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.memory_cache import Content, MemoryCache
from mirror.store.metadata.index import Link, TagEntry

X, Y = Repository("docker.io", "library/x"), Repository("docker.io", "library/y")
DIGEST = Digest.of(b"data")
CONTENT = Content(Link(size=4), b"data")
ENTRY = TagEntry(str(DIGEST), "a", 4, 1.0)


def test_content_is_known_for_its_repository() -> None:
    """The link is part of it (invariant 5)."""
    memory = MemoryCache(100_000)
    memory.put_content(X, DIGEST, CONTENT, memory.version)
    assert (memory.content(X, DIGEST), memory.content(Y, DIGEST)) == (CONTENT, None)
    memory.forget(X, [DIGEST])
    assert memory.content(X, DIGEST) is None


def test_what_was_overtaken_by_a_write_is_not_kept() -> None:
    """Read before, arrived after."""
    memory = MemoryCache(100_000)
    before = memory.version
    memory.forget(Y, [])
    memory.put_content(X, DIGEST, CONTENT, before)
    memory.put_tag(X, Tag("t"), ENTRY, before)
    assert (memory.content(X, DIGEST), memory.tag(X, Tag("t"))) == (None, None)


def test_tags_come_and_go() -> None:
    """One entry each."""
    memory = MemoryCache(100_000)
    memory.put_tag(X, Tag("t"), ENTRY, memory.version)
    assert memory.tag(X, Tag("t")) == ENTRY
    memory.forget_tag(X, Tag("t"))
    assert memory.tag(X, Tag("t")) is None


def test_a_removal_by_anybody_ends_it() -> None:
    """All of it, also what is just being read."""
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
