"""Questions about hosted repositories; test_hosted_index.py asks them after each kind of change."""

from contextlib import closing
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.oci.reference import Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.push_writer import PushWriter
from mirror.store.hosted.pushes import PushedManifest
from mirror.store.metadata.index import Link
from tests.hosting import APP, OTHER

DATA = b'{"schemaVersion":2}'


def test_queries_of_an_empty_and_a_full_repository(tmp_path: Path) -> None:
    subject = Digest.of(b"subject")
    with closing(CacheDirectory(tmp_path)) as folder:
        index = HostedIndex(folder)
        index.names.register(["office"], [])
        queries, digest = index.queries, Digest.of(DATA)
        assert not queries.exists(APP)
        assert (queries.linking(digest, 9), queries.held("office"), queries.tags_of(APP, digest)) == (
            [],
            0,
            [],
        )
        tags = (Tag("b"), Tag("a"))
        push = PushedManifest(APP, digest, DATA, OCI_MANIFEST, tags, subject=subject, descriptor="{}")
        PushWriter(folder, index).put_manifests([push])
        assert queries.exists(APP)
        assert queries.tags_of(APP, digest) == ["a", "b"]
        assert [name for name, _ in queries.tag_entries(APP, "a", 9)] == ["b"]
        assert queries.referring(APP, subject) == [digest]
        assert queries.referring(OTHER, subject) == []
        assert queries.referrers(APP, subject, "", ())[0] == "[{}]"
        assert queries.linking(digest, 9) == [APP]
        assert queries.linking(digest, 0) == []
        assert [queries.held(each) for each in ("office", "office/app", "office/team/other")] == [19, 19, 0]


def test_links_among_digests_are_those_that_can_be_read(tmp_path: Path) -> None:
    """A row of another kind, or in a file, is read as `Index.link` reads it."""
    digests = [Digest.of(b"%d" % number) for number in range(4)]
    with closing(CacheDirectory(tmp_path)) as folder:
        index, queries = folder.index, HostedIndex(folder).queries
        index.add_links(APP, {each: Link(size=1) for each in digests[:2]})
        index.database.put_text(f"link:{APP}@{digests[1]}", "[]")
        index.database.cache.set(f"link:{APP}@{digests[2]}", Link("x" * 40_000).to_json())
        found = queries.links_among(APP, digests)
        assert found == {each: link for each in digests if (link := index.link(APP, each)) is not None}
        assert set(found) == {digests[0], digests[2]}
        assert queries.links_among(OTHER, digests) == queries.links_among(APP, ()) == {}
