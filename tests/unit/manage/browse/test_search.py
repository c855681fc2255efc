"""Search over the names of all images."""

import gc
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mirror.manage.browse.search import MOST_ROWS, NameSearch, TagDescriber, words_of
from mirror.oci.image_pattern import Pin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.index import TagEntry
from tests.fakes.cached import X, Y, open_folder, put_image, put_index


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheDirectory]:
    opened = open_folder(tmp_path / "cache")
    yield opened
    opened.close()


def names(folder: CacheDirectory, text: str) -> list[str]:
    found = NameSearch(folder.index).tags(words_of(text), "")
    return [f"{each.repository}:{each.tag}" for each in found]


def test_search_finds_words_anywhere_and_nothing_by_wildcards(folder: CacheDirectory) -> None:
    """The kind of a key is no name, and neither is a percent sign or an underscore."""
    put_image(folder, X, "3.20", [b"a"])
    put_image(folder, X, "3_21", [b"a"])
    put_image(folder, Y, "V1", [b"a"])
    assert names(folder, "3.2") == [f"{X}:3.20"]
    assert names(folder, "_") == [f"{X}:3_21"]
    assert names(folder, "v1") == [f"{Y}:V1"]
    assert names(folder, "tag") == names(folder, "%") == names(folder, "!") == []
    assert NameSearch(folder.index).repositories(words_of("repository"), "") == []
    assert NameSearch(folder.index).repositories((), "") == [str(X), str(Y)]
    assert NameSearch(folder.index).count_tags([str(X), str(Y), "no/such"]) == {
        str(X): 2,
        str(Y): 1,
        "no/such": 0,
    }


def test_row_of_a_tag_has_what_is_here_and_what_is_missing(folder: CacheDirectory) -> None:
    """Platforms that are not here are not missing, unless none is."""
    put_image(folder, X, "1", [b"a" * 100])
    put_index(folder, X, "2", [[b"b"], [b"c"]])
    folder.pinning.pin(Pin.parse(f"{X}:1"))
    first, second = TagDescriber(folder).rows(NameSearch(folder.index).tags((), ""))
    assert (first.missing, first.pinned, first.size > 100) == (0, True, True)
    assert (second.missing, second.pinned, second.platforms) == (2, False, [])
    assert first.last_used is not None


def seconds(work: Callable[[], object]) -> float:
    """Return processor time without that of the collector, which looks at the objects of all tests before."""
    gc.disable()
    try:
        began = time.process_time()
        work()
        return time.process_time() - began
    finally:
        gc.enable()


@pytest.mark.slow
def test_search_in_many_names_takes_a_moment(folder: CacheDirectory) -> None:
    """50,000 tags of 20,000 images: each page, also of a search that finds nothing, in 300 ms."""
    cache = folder.index.database.cache
    entry = TagEntry("sha256:" + "0" * 64, "application/x", 1000, 1.0).to_json()
    with cache.transact():
        for number in range(50_000):
            cache.set(f"tag:hub.test/team/app{number % 20_000:05}:v{number}", entry)
        for number in range(20_000):
            cache.set(f"repository:hub.test/team/app{number:05}", "")
    search = NameSearch(folder.index)
    for text, after in (("", ""), ("app19999", ""), ("no such", ""), ("", "tag:hub.test/team/app15000:v1")):
        assert len(search.tags(words_of(text), after)) <= MOST_ROWS
        assert seconds(partial(search.tags, words_of(text), after)) < 0.3
    assert len(search.repositories(words_of("199"), "")) > 100
    assert seconds(partial(search.repositories, words_of("199"), "")) < 0.3
