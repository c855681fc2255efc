"""python -m tests.fuzz: raw requests and odd upstreams against running mirrors, with both parsers of aiohttp.

Every case is one connection: requests of all shapes of the API, in turn, pipelined, in pieces, byte by byte
or half-closed; some of them damaged, some to upstreams that misbehave. Two mirrors get the same bytes, each
with workers: one with aiohttp's parser in C, one with that in Python. A fake origin computes all content.

A run fails at a status that documents do not allow (5xx are those of an upstream that is out of order), wrong
bytes, the answer of another request, an error that is no OCI error, a traceback or an error in a log, a dead
worker, parsers that differ (tests/fuzz/differences.py has the known differences), and memory, descriptors,
threads or tasks that do not return to rest. SIGTERM ends a run with its mirrors.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from mirror.util.tasks import run_to_completion
from tests.fuzz.campaign import Campaign, Failure, Figures
from tests.fuzz.cases import Case, case_of
from tests.fuzz.level import growth
from tests.fuzz.minimise import Minimiser
from tests.fuzz.mirrors import PARSERS, MirrorUnderTest
from tests.fuzz.origin import Origin
from tests.fuzz.watched import BOUNDS

EXAMPLES = """
examples:
  python -m tests.fuzz                                  a minute, a random seed, two workers, both parsers
  nice python -m tests.fuzz --requests 1000000          the nightly run
  nice python -m tests.fuzz --requests 200000 --bounds small    that memory levels off, nightly
  python -m tests.fuzz --seed 7 --only 1234             one case again, with what was sent and what came back
  python -m tests.fuzz --seed 7 --first 1200 --minutes 1    from case 1200 on, for a failure that needs others
  python -m tests.fuzz --parser python --workers 1      one mirror, one process, easier to read
  python -m tests.fuzz parsers --help                   parsers of access alone, without a mirror

exit status: 0 nothing found, 1 failures, 2 wrong usage, 143 ended by SIGTERM
"""

# Exit status of a run that SIGTERM has ended, as a shell has it.
TERMINATED = 128 + signal.SIGTERM

# Failures whose cases are minimised and shown.
SHOWN = 12


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["parsers"]:
        from tests.fuzz.parsers.__main__ import main as try_parsers

        return try_parsers(words[1:])
    arguments = _parser().parse_args(words)
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    with TemporaryDirectory(prefix="fuzz-") as folder:
        try:
            return asyncio.run(_run(arguments, seed, Path(folder)))
        except asyncio.CancelledError:
            return TERMINATED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__.partition(": ")[2],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seed", type=int, help="seed of the cases; a random one by default, which is printed"
    )
    parser.add_argument("--requests", type=int, help="stop after so many requests, counted at each mirror")
    parser.add_argument("--minutes", type=float, help="stop after this time; 1 without --requests")
    parser.add_argument("--parser", choices=[*PARSERS, "both"], default="both", help="parser of the mirrors")
    parser.add_argument("--workers", type=int, default=2, help="workers of each mirror (default: 2)")
    parser.add_argument(
        "--bounds",
        choices=BOUNDS,
        default="default",
        help="bounds of containers: small ones show that memory levels off, leaking ones the contrary",
    )
    parser.add_argument("--first", type=int, default=0, metavar="K", help="begin with case K of the seed")
    parser.add_argument("--only", type=int, metavar="K", help="run case K alone, and show it")
    return parser


async def _run(arguments: argparse.Namespace, seed: int, folder: Path) -> int:
    _end_by_signal(asyncio.current_task())
    names = list(PARSERS) if arguments.parser == "both" else [arguments.parser]
    print(f"seed {seed}, parsers {' and '.join(names)}, {arguments.workers} workers each", flush=True)
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(Origin())
        mirrors = [
            MirrorUnderTest(folder / name, origin.url, name, arguments.workers, arguments.bounds)
            for name in names
        ]
        for mirror in mirrors:
            stack.push_async_callback(asyncio.to_thread, mirror.stop)
            await run_to_completion(asyncio.to_thread(mirror.start))
            print(f"mirror {mirror.parser}: process {mirror.pid}, port {mirror.port}", flush=True)
        campaign = Campaign(seed, mirrors, _progress)
        if arguments.only is not None:
            await campaign.round([case_of(seed, arguments.only)])
            print(_described(case_of(seed, arguments.only)))
        else:
            await campaign.run(_limit(arguments.requests, arguments.minutes), arguments.first)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        await _report(campaign, mirrors)
    return 1 if campaign.figures.failures else 0


def _end_by_signal(run: "asyncio.Task[int] | None") -> None:
    """End the run at the first SIGTERM, with its mirrors, whose ends a second one does not interrupt."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert run is not None
        run.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)


def _limit(requests: int | None, minutes: float | None) -> Callable[[Figures], bool]:
    """Return the test for the end of a run."""
    seconds = 60.0 * (minutes if minutes is not None else 1.0 if requests is None else float("inf"))
    end = time.monotonic() + seconds

    def enough(figures: Figures) -> bool:
        return time.monotonic() > end or (requests is not None and figures.requests >= requests)

    return enough


def _progress(figures: Figures) -> None:
    """Show new failures, and a line on a terminal; elsewhere one every 10 rounds."""
    for failure in figures.unshown():
        print(
            f"failure: case {failure.case.number}, parser {failure.parser}: {failure.text[:300]}", flush=True
        )
    rate = figures.requests / max(figures.seconds, 0.001)
    line = f"{figures.requests:,} requests, {rate:,.0f} a second, {len(figures.failures)} failures"
    if sys.stderr.isatty():
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
        print(f"\r{line:<{columns - 1}}", end="", file=sys.stderr, flush=True)
    elif figures.cases % 4_000 == 0:
        memory = figures.memory[-1][1] if figures.memory else {}
        held = ", ".join(f"{parser} {bytes_ / 2**20:.0f} MiB" for parser, bytes_ in memory.items())
        print(f"{line}; {held}", flush=True)


async def _report(campaign: Campaign, mirrors: list[MirrorUnderTest]) -> None:
    figures = campaign.figures
    rate = figures.requests / max(figures.seconds, 0.001)
    done = f"{figures.requests:,} requests, {figures.cases:,} cases"
    print(f"{done}, {figures.seconds:.0f} s, {rate:,.0f} a second")
    print(f"cases: {_counted(figures.labels, 4)}; statuses: {_counted(figures.statuses, 20)}")
    for parser, after in figures.after.items():
        print(f"at rest, {parser}: {figures.before[parser]}; at the end: {after}")
    for parser in figures.before:
        print(f"memory, {parser}, at work: {_course(figures, parser)}")
    for parser, samples in figures.live.items():
        print(
            f"in use, {parser}: {growth(samples) / 2**20:.1f} MiB more in the last quarter than in the second"
        )
    for reason, count in figures.differences.most_common():
        print(f"parsers differ, as known, {count} times: {reason}")
    print(f"{len(figures.failures)} failures of {len(figures.kinds())} kinds", flush=True)
    for found in list(figures.kinds().values())[:SHOWN]:
        print(await _explained(campaign, found, mirrors), flush=True)


def _course(figures: Figures, parser: str) -> str:
    """Return the memory of a mirror over the run, at eleven moments at most."""
    step = max(1, -(-(len(figures.memory) - 1) // 10))
    rows = figures.memory[::step]
    return ", ".join(f"{each[parser] / 2**20:.0f} MiB at {requests:,}" for requests, each in rows)


def _counted(counts: "dict[str, int] | dict[int, int]", most: int) -> str:
    rows = sorted(counts.items(), key=lambda row: -row[1])
    return ", ".join(f"{count:,} {name}" for name, count in rows[:most])


async def _explained(campaign: Campaign, found: list[Failure], mirrors: list[MirrorUnderTest]) -> str:
    """Return a failure with its minimised case, and how to repeat it."""
    failure = found[0]
    mirror = next((each for each in mirrors if each.parser == failure.parser), mirrors[0])
    minimiser = Minimiser(campaign, failure, mirror)
    case = await minimiser.run()
    note = (
        ""
        if minimiser.shows_alone
        else " (does not show alone: --first a little before it instead of --only)"
    )
    again = f"python -m tests.fuzz --seed {campaign.seed} --only {failure.case.number}{note}"
    times = f" ({len(found)} times)" if len(found) > 1 else ""
    return f"FAILURE{times} parser {failure.parser}: {failure.text}\n{_described(case)}\nagain: {again}\n"


def _described(case: Case) -> str:
    rows = [f"case {case.number} ({case.label}), upstream {case.upstream}, sent {case.way}:"]
    return "\n".join([*rows, *(f"  {each.data!r}"[:3_000] for each in case.requests)])


if __name__ == "__main__":
    sys.exit(main())
