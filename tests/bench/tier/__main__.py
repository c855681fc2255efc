"""python -m tests.bench.tier: the shared tier on shaped lines, each program in a namespace of its own.

Upstream, object store (SeaweedFS), coordinator (Redis), mirrors and their clients are nodes on one switch,
which nothing else reaches. It needs root, and takes about ten minutes. Lines are slower than real ones,
and images smaller in proportion, so that the processors are not the limit.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.client import Trouble
from tests.bench.content import Image
from tests.bench.content import Site as Content
from tests.bench.machine import Others, describe
from tests.bench.report import add_outputs, write_outputs
from tests.bench.tier.herd import Plan, herd, trouble
from tests.bench.tier.network import MBIT, missing
from tests.bench.tier.newcomer import newcomer
from tests.bench.tier.rows import Figures, document, table
from tests.bench.tier.site import Site, site
from tests.bench.tier.warm import lines, overhead


@dataclass(frozen=True)
class Sizes:
    """Rates of lines in Mbit/s, sizes of layers in MiB, and seconds of a measurement."""

    herd: int = 400
    herd_layers: tuple[int, ...] = (16, 9, 8)
    trouble: int = 400
    trouble_upstream: int = 12
    trouble_layers: tuple[int, ...] = (10, 8, 2, 1)
    lines: int = 200
    newcomer: int = 500  # as long for its image as 1 Gbit/s for 2 GiB
    newcomer_layers: tuple[int, ...] = (256, 255, 257, 192, 193, 64, 63)
    seconds: float = 4
    turns: int = 5


# For a busy machine, and to see whether it works.
QUICK = Sizes(
    herd=100,
    herd_layers=(9,),
    trouble=200,
    trouble_layers=(9, 1),
    trouble_upstream=6,
    lines=50,
    newcomer=200,
    newcomer_layers=(128, 127, 126, 48, 47, 36),
    seconds=2,
    turns=3,
)


class Bench:
    """One run: its content, and the parts that it can measure."""

    def __init__(self, content: Content, sizes: Sizes, figures: Figures) -> None:
        self._sizes = sizes
        self._figures = figures
        self._herd = content.image("library/herd-of-mirrors", sizes.herd_layers)
        self._trouble = content.image("library/trouble", sizes.trouble_layers)
        self._warm = content.image("library/warm-mirrors", (32,))
        self._content = content

    @property
    def large(self) -> Image:
        return self._content.image("library/newcomer", self._sizes.newcomer_layers)

    def herd(self, site: Site) -> None:
        line = self._sizes.herd * MBIT
        herd(site, Plan(self._herd, line, line), self._figures)

    def trouble(self, site: Site) -> None:
        sizes = self._sizes
        trouble(site, Plan(self._trouble, sizes.trouble * MBIT, sizes.trouble_upstream * MBIT), self._figures)

    def lines(self, site: Site) -> None:
        lines(site, self._warm, self._sizes.lines * MBIT, self._figures, self._sizes.seconds)

    def overhead(self, site: Site) -> None:
        overhead(site, self._warm, self._figures, self._sizes.seconds / 2, self._sizes.turns)

    def newcomer(self, site: Site) -> None:
        newcomer(site, self.large, self._sizes.newcomer * MBIT, self._figures, 2)


PARTS: dict[str, Callable[[Bench, Site], None]] = {
    "herd": Bench.herd,
    "trouble": Bench.trouble,
    "lines": Bench.lines,
    "overhead": Bench.overhead,
    "newcomer": Bench.newcomer,
}


def main() -> int:
    """Measure what the command line says, and print the table."""
    arguments = _parser().parse_args()
    if missing():
        print(missing(), file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the started programs, too
    others, figures, started = Others(), Figures(), time.monotonic()
    sizes = QUICK if arguments.quick else Sizes()
    with TemporaryDirectory(prefix="tier", dir=arguments.folder, ignore_cleanup_errors=True) as folder:
        try:
            _measure(Path(folder), sizes, arguments, figures)
        except KeyboardInterrupt:
            figures.note("the run was interrupted")
    about = describe() | {"run": f"{time.monotonic() - started:.0f} s", "sizes": str(sizes)}
    about["other programs took"] = f"{others.share():.0%} of the processors"
    write_outputs(arguments, table(figures, about), document(figures, about))
    return 0


def _measure(folder: Path, sizes: Sizes, arguments: argparse.Namespace, figures: Figures) -> None:
    content = Content(folder / "content", arguments.quick)
    bench = Bench(content, sizes, figures)
    with site(folder, content) as here:
        for number in range(1, arguments.rounds + 1):
            for name in arguments.only or PARTS:
                _say(f"round {number} of {arguments.rounds}: {name}")
                try:
                    PARTS[name](bench, here)
                except (Trouble, AssertionError) as error:
                    reason = " ".join(str(error).split())[:300]
                    figures.note(f"{name}, round {number}, failed: {reason}")
                    _say(f"{name} failed: {reason}")
                _say(json.dumps({key: round(values[-1], 3) for key, values in figures.rounds.items()}))


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tests.bench.tier", description=(__doc__ or "").partition("\n\n")[2]
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, metavar="PART", help=f"some of: {', '.join(PARTS)}")
    add("--rounds", type=int, default=1, help="how often each part is measured (default 1)")
    add("--quick", action="store_true", help="slower lines and smaller images, for a busy machine")
    add_outputs(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
