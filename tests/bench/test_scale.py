"""Scale bench: its stock is made by the store; its table has a column for each size."""

from contextlib import closing
from pathlib import Path

from mirror.manage.inventory import Inventory
from mirror.oci.image_pattern import ImagePattern
from mirror.store.cache_dir import CacheDirectory
from tests.bench.report import Results
from tests.bench.scale import table
from tests.bench.stock import BLOBS, image, make


def test_stock_is_whole(tmp_path: Path) -> None:
    """Each tag has ten blobs, all linked and present, as the mirror itself would leave them."""
    make(tmp_path / "cache", 3 * BLOBS)
    with closing(CacheDirectory(tmp_path / "cache")) as folder:
        images = list(Inventory(folder).images(ImagePattern("*")))
        assert [(each.tag, each.missing) for each in images] == [("v0", ()), ("v1", ()), ("v2", ())]
        assert folder.blobs.stats()[1] == 3 * BLOBS
        assert folder.blobs.check() == []
        one = image(1)
        assert folder.reader.open_blob(one.repository, list(one.blobs)[-1]).data == b"layer 7 of image 1\n"


def test_scale_table_compares_sizes() -> None:
    """The table has a line for each measured row, and a column for each size, in order."""
    results = Results(notes=["a note"])
    for size, value in (("1,000", 1.0), ("10,000", 1.1)):
        results.add("ready", size, 1, value)
    assert table(results, {"cores": "2"}).splitlines() == [
        "| blobs | 1,000 | 10,000 |",
        "| --- | --- | --- |",
        "| start to ready, s | 1.00 | 1.10 |",
        "",
        "cores 2.",
        "- a note",
    ]
