"""python -m tests.bench: the mirror beside its peers, on this machine, in one run.

The server runs on one core; origin, CDN and load on another. Contestants take turns within every round. The
table compares ratios within a round; it has medians, with the lowest and the highest round.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import (
    abuse,
    carry,
    cold,
    durable,
    images,
    lazy,
    push,
    readers,
    rules,
    several,
    small,
    sources,
    startup,
    tls,
    warm,
)
from tests.bench.bench import Bench, Options
from tests.bench.machine import CORES, LOAD_CORE, Others, describe, missing
from tests.bench.report import add_outputs, document, markdown, write_outputs


@dataclass(frozen=True)
class Scenario:
    """One scenario. `warm`: it uses the servers that are kept warm for a whole round."""

    run: Callable[[Bench], None]
    warm: bool = False


SCENARIOS = {
    "startup": Scenario(startup.startup),
    "warm-blob-1": Scenario(partial(warm.warm_blob, connections=1), True),
    "warm-blob-16": Scenario(partial(warm.warm_blob, connections=16), True),
    "manifest-digest": Scenario(warm.manifest_by_digest, True),
    "manifest-tag": Scenario(warm.manifest_by_tag, True),
    "config-blob": Scenario(warm.config_blob, True),
    "rules-small": Scenario(rules.rules_small),
    "ranges": Scenario(warm.ranges, True),
    "multi-ranges": Scenario(lazy.multi_ranges, True),
    "cold-gib": Scenario(cold.cold_gib),
    "cold-gib-tls": Scenario(partial(cold.cold_gib, secure=True)),
    "parallel-ranges": Scenario(lazy.parallel_ranges),
    "herd": Scenario(cold.herd),
    "slow-wan": Scenario(cold.slow_wan),
    "many-images": Scenario(images.many_images),
    "two-sources": Scenario(sources.two_sources),
    "lossy-source": Scenario(sources.lossy_source),
    "slow-readers": Scenario(readers.slow_readers),
    "arrivals": Scenario(readers.arrivals, True),
    "small-fills": Scenario(small.small_fills),
    "tls-blob": Scenario(tls.tls_blob),
    "workers-small": Scenario(several.workers_small),
    "workers-tls": Scenario(several.workers_tls),
    "workers-herd": Scenario(several.workers_herd),
    "durability": Scenario(durable.durability),
    "push-gib": Scenario(push.push_gib),
    "push-small": Scenario(push.push_small),
    "carry": Scenario(carry.carry),
    **{f"abuse-{kind}": Scenario(partial(abuse.abuse, kind=kind)) for kind in abuse.KINDS},
}


def main() -> int:
    arguments = _parser().parse_args()
    packages = missing()
    if packages:
        print(f"The bench needs: sudo apt-get install -y {' '.join(packages)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the started programs, too
    os.sched_setaffinity(0, {LOAD_CORE})
    options = Options(arguments.rounds, arguments.quick, arguments.small, arguments.base, arguments.abuse)
    others = Others()
    with TemporaryDirectory(prefix="bench", dir=arguments.folder, ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder), options)
        try:
            _rounds(bench, arguments.only or list(SCENARIOS))
        except KeyboardInterrupt:
            bench.note("the run was interrupted")
        finally:
            bench.cool()
            busy = f"{others.share():.0%}"
    _report(bench, arguments, {"other programs took": f"{busy} of the processors"})
    return 0


def _rounds(bench: Bench, names: list[str]) -> None:
    if len(CORES) < 2:
        bench.note("this machine has one core: server and load share it")
    if bench.options.quick:
        bench.note("quick: less content and time than the table says; not to be quoted")
    for number in range(1, bench.options.rounds + 1):
        bench.number = number
        for name in names:
            bench.say(f"[{time.strftime('%H:%M:%S')}] round {number} of {bench.options.rounds}: {name}")
            if not SCENARIOS[name].warm:
                bench.cool()
            SCENARIOS[name].run(bench)
        bench.cool()


def _report(bench: Bench, arguments: argparse.Namespace, more: dict[str, str]) -> None:
    about = describe() | {"rounds": str(bench.options.rounds)} | more
    write_outputs(arguments, markdown(bench.results, about), document(bench.results, about))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tests.bench", description=(__doc__ or "").partition("\n\n")[2]
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=SCENARIOS, metavar="SCENARIO", help=f"some of: {', '.join(SCENARIOS)}")
    add("--rounds", type=int, default=3, help="runs of each scenario (default 3)")
    add(
        "--quick", action="store_true", help="short runs and small content: shows that it works, not how fast"
    )
    add("--small", type=int, default=10_000, help="blobs of small-fills (default 10,000)")
    add("--abuse", type=float, default=10, metavar="SECONDS", help="duration of each abuse (default 10)")
    add(
        "--base", type=Path, metavar="DIR", help="another checkout with its own .venv, compared with this one"
    )
    add_outputs(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
