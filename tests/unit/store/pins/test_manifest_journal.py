"""The journal of pinned manifests: written and read again."""

import os
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.metadata.closure import Children, Part
from mirror.store.pins.manifest_journal import read_journal, sizes_of, write_journal

LAYER, IMAGE, INDEX = (Digest.of(each) for each in (b"layer", b"image", b"index"))
NAMED: Children = {
    INDEX: (
        Part(IMAGE, 5, True, "linux/amd64"),
        Part(LAYER, 7, True, is_referrer=True, attached_to=str(IMAGE)),
    ),
    IMAGE: (Part(LAYER, 6),),
    LAYER: (),
}


def test_journal_is_read_as_written(tmp_path: Path) -> None:
    """No other file is left beside it."""
    assert read_journal(tmp_path / "kept") == {}
    write_journal(tmp_path / "kept", NAMED)
    assert read_journal(tmp_path / "kept") == NAMED
    assert os.listdir(tmp_path) == ["kept"]


def test_journal_skips_unreadable_lines(tmp_path: Path) -> None:
    """The other lines count."""
    write_journal(tmp_path / "kept", NAMED)
    with (tmp_path / "kept").open("a") as file:
        file.write(f'no json\n[]\n["x"]\n["{IMAGE}", 1]\n["{IMAGE}", ["x", 1]]\n{{}}\n')
    assert read_journal(tmp_path / "kept") == NAMED


def test_journal_sizes(tmp_path: Path) -> None:
    """Sizes of all manifests and children, as far as they are known."""
    assert sizes_of(NAMED) == {str(INDEX): 0, str(IMAGE): 5, str(LAYER): 6}
