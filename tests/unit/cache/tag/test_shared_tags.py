"""Tags by the word of other mirrors; tests/unit/transfer/shared/test_shared_words.py has whole mirrors."""

from pathlib import Path

from mirror.cache.tag.shared_tags import SharedTags
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import TagEntry
from tests.fakes.registry import FakeRegistry
from tests.running import mirror_of

ENTRY = TagEntry("sha256:" + "0" * 64, "application/json", 1, 1.0)


async def test_shared_tags_without_a_tier_are_those_of_the_mirror(fake: FakeRegistry, tmp_path: Path) -> None:
    """Nothing is asked, nothing is told."""
    async with mirror_of(fake, tmp_path) as mirror:
        tags = SharedTags(mirror.service.cache._tags._context, mirror.service.cache._manifests.bring, 60.0)
        repository, tag = Repository("docker.io", "library/x"), Tag("t")
        assert await tags.latest(repository, tag, ENTRY) == ENTRY
        assert await tags.latest(repository, tag, None) is None
        tags.note_tag(repository, tag, ENTRY)
        tags.note_missing(repository, tag)
