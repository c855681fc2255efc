"""The election of the housekeeper."""

from pathlib import Path

from mirror.store.folder.housekeeper import Housekeeper


def test_housekeeper_is_one_of_all_until_it_releases(tmp_path: Path) -> None:
    """A claim holds until it is released, however often it is made; then another one can be."""
    first, second = Housekeeper(tmp_path), Housekeeper(tmp_path)
    assert [first.claim(), second.claim(), first.claim()] == [True, False, True]
    second.release()
    assert not second.claim()
    first.release()
    assert [second.claim(), first.claim()] == [True, False]
    second.release()
