"""python -m tests.bench.scale: the cost of a cache with a thousand blobs, and with a million.

The store itself makes a cache folder of each size: tiny blobs, ten for each tag. Then the mirror is started
on it, receives requests, and is maintained. The question is whether a figure grows with the number of blobs.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.content import Site
from tests.bench.machine import LOAD_CORE, Others, describe, file_system
from tests.bench.report import Results, shown
from tests.bench.stock import BLOBS, make
from tests.bench.upkeep import Upkeep
from tests.bench.visits import Visits

SIZES = (1_000, 10_000, 100_000, 1_000_000)

WORK = {
    "ready": "start to ready, s",
    "ready-cpu": "same, processor s",
    "ready-cold": "same, nothing in the page cache, s",
    "rss": "memory when idle, MB",
    "blob": "hit, blob not in memory, p50 ms",
    "blob-p99": "same, p99 ms",
    "blob-cpu": "same, server processor µs",
    "blob-memory": "hit, blob in memory, p50 ms",
    "blob-memory-p99": "same, p99 ms",
    "blob-memory-cpu": "same, server processor µs",
    "tag": "hit, tag and manifest not in memory, p50 ms",
    "tag-p99": "same, p99 ms",
    "tag-cpu": "same, server processor µs",
    "tag-memory": "hit, tag and manifest in memory, p50 ms",
    "tag-memory-p99": "same, p99 ms",
    "tag-memory-cpu": "same, server processor µs",
    "blob-cold": "hit, blob, nothing in the page cache, p50 ms",
    "rss-used": "memory after all these hits, MB",
    "fill": "fills of 2 KiB, 32 at a time, per second",
    "fill-cpu": "same, server processor µs",
    "insert": "insert through the store, µs per blob",
    "insert-cpu": "same, processor µs",
    "touch": "noting the last use, µs per blob",
    "touch-cpu": "same, processor µs",
    "evict": "eviction of 1,000 over the quota, µs per blob",
    "evict-cpu": "same, processor µs",
    "ls-one": "`ls` of one image, s",
    "ls-one-cpu": "same, processor s",
    "rm-one": "`rm` of one image, s",
    "rm-one-cpu": "same, processor s",
    "ls": "`ls` of everything, s",
    "ls-cpu": "same, processor s",
    "du": "`du`, s",
    "du-cpu": "same, processor s",
    "gc": "`gc` without garbage, s",
    "gc-cpu": "same, processor s",
    "verify": "`verify --quick`, s",
    "verify-cpu": "same, processor s",
    "command-rss": "peak memory of these commands, MB",
    "databases": "databases, MB",
    "wal": "write-ahead logs of the databases, at most, MB",
}


def main() -> int:
    arguments = _parser().parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    others, results = Others(), Results(notes=[])
    with TemporaryDirectory(prefix="scale", dir=arguments.folder, ignore_cleanup_errors=True) as folder:
        place, site = arguments.keep or Path(folder), Site(Path(folder) / "site", quick=False)
        about = describe() | {"file system": file_system(place), "rounds": str(arguments.rounds)}
        try:
            for size in arguments.sizes:
                stock = _stock(place / str(size), size)
                for number in range(1, arguments.rounds + 1):
                    _measure(stock, size, (number, site), results)
                if not arguments.keep:
                    shutil.rmtree(place / str(size))
        except KeyboardInterrupt:
            results.notes.append("the run was interrupted")
    about["other programs took"] = f"{others.share():.0%} of the processors"
    _report(results, arguments, about)
    return 0


def _stock(folder: Path, size: int) -> Path:
    if not folder.exists():
        _say(f"making a cache of {size:,} blobs and {size // BLOBS:,} tags")
        make(folder / "cache", size)
    return folder


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _measure(folder: Path, size: int, turn: tuple[int, Site], results: Results) -> None:
    number, site = turn

    def add(row: str, value: float) -> None:
        results.add(row, f"{size:,}", number, value)
        _say(f"{size:,} blobs, round {number}: {WORK[row]}: {shown(value)}")

    visits, upkeep = Visits(folder, size, number, add), Upkeep(folder, size, number, add)
    visits.starts()
    visits.hits()
    visits.fills(site)
    upkeep.store()
    upkeep.commands()
    upkeep.databases()


def _report(results: Results, arguments: argparse.Namespace, about: dict[str, str]) -> None:
    document = {"about": about, "rows": _rows(results), "notes": results.notes}
    text = table(results, about)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


def table(results: Results, about: dict[str, str]) -> str:
    sizes = list(dict.fromkeys(size for row in results.rounds.values() for size in row))
    lines = [["blobs", *sizes], ["---"] * (len(sizes) + 1)]
    for key, work in WORK.items():
        found = [results.of(key, size) for size in sizes]
        if any(found):
            lines.append([work, *("-" if each is None else str(each) for each in found)])
    text = [f"| {' | '.join(cells)} |" for cells in lines]
    text += ["", "; ".join(f"{name} {value}" for name, value in about.items()) + "."]
    return "\n".join(text + [f"- {note}" for note in results.notes]) + "\n"


def _rows(results: Results) -> list[dict[str, object]]:
    return [
        {"key": key, "work": work, "sizes": {size: list(each.values()) for size, each in row.items()}}
        for key, work in WORK.items()
        if (row := results.rounds.get(key))
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tests.bench.scale", description=(__doc__ or "").partition("\n\n")[2]
    )
    add = parser.add_argument
    add("--sizes", nargs="+", type=int, default=SIZES, metavar="BLOBS", help="default: 1000 to 1000000")
    add("--rounds", type=int, default=3, help="measurements of each size (default 3)")
    add("--folder", type=Path, help="folder of the caches, on the disk to measure; a million blobs take 6 GB")
    add("--keep", type=Path, metavar="FOLDER", help="use existing caches in FOLDER, and keep new ones there")
    add("--json", type=Path, metavar="FILE", help="write the figures of every round")
    add("--markdown", type=Path, metavar="FILE", help="write the printed table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
