"""Content as a repository may see it."""

from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import Origin
from mirror.store.metadata.index import Link
from tests.fakes.cached import open_folder

X, Y = Repository("docker.io", "library/x"), Repository("docker.io", "library/y")
DIGEST = Digest.of(b"layer")


def test_reader_opens_by_a_link_that_opens(tmp_path: Path) -> None:
    """A name alone opens public content, not what came with an account; without a link nothing opens."""
    folder = open_folder(tmp_path / "cache")
    folder.writer.put_small_blob(DIGEST, b"layer", Origin.PRIVATE)
    folder.index.add_links(X, {DIGEST: Link(size=5)})
    reader = folder.reader
    named = reader.open_blob(X, DIGEST)
    assert (named.unconfirmed, named.data, named.present) == (True, None, True)
    assert (reader.open_blob(Y, DIGEST).link, reader.open_blob(Y, DIGEST).data) == (None, None)
    folder.index.add_links(X, {DIGEST: Link(size=5, confirmed=1.0)})
    assert reader.open_blob(X, DIGEST).data == b"layer"
    assert (reader.read(DIGEST, 4), reader.read(DIGEST, 5)) == (None, b"layer")
    folder.close()
