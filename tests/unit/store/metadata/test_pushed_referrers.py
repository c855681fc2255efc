"""Referrers of what was pushed."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.oci.referrers import array_of
from mirror.store.metadata import pushed_referrers
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


def test_pages_of_a_list_have_each_descriptor_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page ends before it would be too long, and has one descriptor at least; more rows than one read."""
    monkeypatch.setattr(pushed_referrers, "PAGE_BYTES", 1000)
    subject, digests = Digest.of(b"subject"), sorted(Digest.of(bytes([each])) for each in range(140))
    sizes = {digest: 2000 if number == 70 else 40 for number, digest in enumerate(digests)}
    with closing(Index(tmp_path)) as index:
        rows = PushedReferrers(index)
        with index.database.cache.transact():
            for digest, size in sizes.items():
                rows.add(APP, digest, subject, f'{{"artifactType":"a/b","x":"{"y" * size}"}}')
        page, last = rows.page(APP, subject, "", ())
        pages = [page]
        while last is not None:
            page, last = rows.page(APP, subject, last, ())
            pages.append(page)
        assert [text for page in pages for text in json.loads(page)] == json.loads(rows.listed(APP, subject))
        assert sum(len(page) > 1002 for page in pages) == 1
        assert min(len(json.loads(page)) for page in pages) == 1
        assert len(pages) < 14


def test_page_of_other_types_reads_no_more_than_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty page says where the next one begins."""
    monkeypatch.setattr(pushed_referrers, "READ_BYTES", 130)
    subject, digests = Digest.of(b"subject"), sorted(map(Digest.of, (b"a", b"b", b"c", b"d")))
    with closing(Index(tmp_path)) as index:
        rows = PushedReferrers(index)
        for number, digest in enumerate(digests):
            kind = "a/wanted" if number == 3 else "a/other"
            rows.add(APP, digest, subject, f'{{"artifactType":"{kind}","x":"{"y" * 20}"}}')
        assert rows.page(APP, subject, "", ["a/wanted"]) == ("[]", str(digests[1]))
        page, last = rows.page(APP, subject, str(digests[1]), ["a/wanted"])
        assert (len(json.loads(page)), last) == (1, None)
