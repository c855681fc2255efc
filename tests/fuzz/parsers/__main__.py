"""python -m tests.fuzz parsers: each parser of outside bytes that access depends on, alone.

Inputs are right ones, damaged: bytes changed, cut, repeated and spliced, words of the grammar put in. A run
fails at an error that the parser does not document, at a result that is not in its one canonical form or does
not parse back to itself, and at an input that takes longer than LIMIT_SECONDS.
"""

import argparse
import random
import sys
import time

from tests.fuzz.parsers.parsers import PARSERS
from tests.fuzz.parsers.trial import LIMIT_SECONDS, Failure, Trial

EXAMPLES = """
examples:
  python -m tests.fuzz parsers                             100,000 inputs, a random seed
  nice python -m tests.fuzz parsers --inputs 1000000       the nightly run
  python -m tests.fuzz parsers --parser range --seed 7     one parser
  python -m tests.fuzz parsers --seed 7 --only 1234        one input again

exit status: 0 nothing found, 1 failures, 2 wrong usage
"""

# Failures of one parser after which it is not tried any more.
ENOUGH = 5


def main(words: list[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    names = [arguments.parser] if arguments.parser else list(PARSERS)
    print(f"seed {seed}, parsers: {', '.join(names)}", flush=True)
    trials = [Trial(PARSERS[name], seed) for name in names]
    if arguments.only is None:
        _run(trials, range(arguments.inputs))
    else:
        number = arguments.only
        trial = trials[number % len(trials)]
        print(f"{trial.parser.name}: {trial.input(number)!r}")
        trial.run(number)
    return _report(trials, seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz parsers",
        description=__doc__.partition(": ")[2],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, help="seed of the inputs; a random one by default")
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs of all parsers together")
    parser.add_argument("--parser", choices=list(PARSERS), help="this parser alone")
    parser.add_argument("--only", type=int, metavar="K", help="run input K alone, and show it")
    return parser


def _run(trials: list[Trial], numbers: range) -> None:
    """Try the parsers in turn."""
    began = time.monotonic()
    for number in numbers:
        trial = trials[number % len(trials)]
        if len(trial.failures) < ENOUGH:
            trial.run(number)
    seconds = time.monotonic() - began
    print(f"{len(numbers):,} inputs, {seconds:.0f} s, {len(numbers) / max(seconds, 0.001):,.0f} a second")


def _report(trials: list[Trial], seed: int) -> int:
    for trial in trials:
        slowest = f"slowest {trial.slowest * 1000:.1f} ms of {LIMIT_SECONDS * 1000:.0f}"
        counts = f"{trial.accepted:,} accepted, {trial.refused:,} refused"
        print(f"{trial.parser.name}: {counts}, {slowest}, {len(trial.failures)} failures")
    failures = [(trial, each) for trial in trials for each in trial.failures]
    for trial, failure in failures:
        print(_explained(trial, failure, seed))
    return 1 if failures else 0


def _explained(trial: Trial, failure: Failure, seed: int) -> str:
    again = f"python -m tests.fuzz parsers --seed {seed} --parser {trial.parser.name} --only {failure.number}"
    shortest = trial.minimised(failure)
    return f"FAILURE {trial.parser.name}: {failure.text}\n  {shortest!r}\n  again: {again}"


if __name__ == "__main__":
    sys.exit(main())
