"""Referrers of what was pushed."""

from contextlib import closing
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.oci.referrers import array_of
from mirror.store.metadata.index import Index
from mirror.store.metadata.pushed_referrers import PushedReferrers

APP = Repository("office", "app")


def test_pushed_referrers_are_listed_in_order_and_dropped(tmp_path: Path) -> None:
    """A repository whose name begins like another one has its own list."""
    subject, digests = Digest.of(b"subject"), sorted(map(Digest.of, (b"a", b"b", b"c")))
    with closing(Index(tmp_path)) as index:
        rows = PushedReferrers(index)
        for digest in reversed(digests):
            rows.add(APP, digest, subject, f'{{"digest":"{digest}"}}')
        rows.add(Repository("office", "app2"), digests[0], subject, "{}")
        assert rows.listed(APP, subject) == array_of(f'{{"digest":"{each}"}}' for each in digests)
        rows.drop(APP, digests[1])
        rows.drop(APP, digests[1])
        assert str(digests[1]) not in rows.listed(APP, subject)
        assert rows.listed(APP, digests[0]) == "[]"


def test_long_descriptors_are_listed_whole(tmp_path: Path) -> None:
    """The database keeps long texts in files: the list must be JSON all the same."""
    subject, descriptor = Digest.of(b"subject"), f'{{"annotations":{{"a":"{"x" * 50_000}"}}}}'
    with closing(Index(tmp_path)) as index:
        rows = PushedReferrers(index)
        rows.add(APP, Digest.of(b"a"), subject, descriptor)
        assert rows.listed(APP, subject) == array_of([descriptor])
