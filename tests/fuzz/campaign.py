"""A run: rounds of cases against the mirrors, judgement of answers, logs and resources."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.fuzz.cases import Case, case_of
from tests.fuzz.client import Conversation, Heard
from tests.fuzz.differences import reason_of
from tests.fuzz.level import Sample, level_fault
from tests.fuzz.mirrors import MirrorUnderTest, Resources
from tests.fuzz.oracle import faults_of

# Cases of a round, after which the logs are read; cases that run at the same time.
ROUND = 400
CLIENTS = 24

# Rounds before resources are measured first: caches are full then.
WARMING = 5

# What a mirror may hold more at the end than after the first rounds. Memory in bytes: its caches are bounded
# (`cache.memory` of each worker, responses, negative entries), and the allocator keeps pages.
GROWTH = Resources(memory=96 * 2**20, descriptors=24, threads=8, tasks=6)


@dataclass(frozen=True)
class Failure:
    """Description of a fault, with its case and its mirror."""

    case: Case
    parser: str
    text: str

    @property
    def kind(self) -> str:
        """Return the text without what differs from case to case."""
        short = re.sub(r"[0-9a-f]{8,}", "#", self.text)
        return f"{self.parser}: {re.sub(r'[0-9]+', '#', short)[:70]}"


@dataclass
class Figures:
    """Counts of a run so far."""

    cases: int = 0
    requests: int = 0
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    differences: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    before: dict[str, Resources] = field(default_factory=dict)
    after: dict[str, Resources] = field(default_factory=dict)
    # Memory of each mirror at work, in bytes, with the number of requests before.
    memory: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    # Of each mirror with small bounds: requests so far to all mirrors, and the bytes in use.
    live: dict[str, list[Sample]] = field(default_factory=dict)

    shown: int = 0

    def unshown(self) -> list[Failure]:
        """Return the failures since the last call: a run that is ended before its report has told them."""
        new, self.shown = self.failures[self.shown :], len(self.failures)
        return new

    def kinds(self) -> dict[str, list[Failure]]:
        """Return the failures by kind."""
        found: dict[str, list[Failure]] = {}
        for each in self.failures:
            found.setdefault(each.kind, []).append(each)
        return found


class Campaign:
    """Rounds of cases of one seed. `progress` is called after each round."""

    def __init__(
        self, seed: int, mirrors: Sequence[MirrorUnderTest], progress: Callable[[Figures], None] | None = None
    ) -> None:
        self.seed = seed
        self.figures = Figures()
        self._mirrors = mirrors
        self._progress = progress
        self._began = time.monotonic()
        self._workers = {each.parser: each.worker_pids() for each in mirrors}

    async def run(self, enough: Callable[[Figures], bool], first: int = 0) -> None:
        """Run rounds until `enough` says so, and compare resources at rest."""
        number = first
        while not enough(self.figures):
            if (number - first) // ROUND == WARMING:
                self.figures.before = await self._rest()
            await self.round([case_of(self.seed, each) for each in range(number, number + ROUND)])
            number += ROUND
            if self._progress is not None:
                self._progress(self.figures)
        if self.figures.before:
            self.figures.after = await self._rest()
            self._compare_rest()
        self._judge_level()

    async def round(self, cases: Sequence[Case]) -> None:
        """Run cases, several at a time, and read the logs."""
        waiting = iter(cases)
        await asyncio.gather(*(self._client(waiting) for _ in range(CLIENTS)))
        await self._read_logs(cases)
        held = await asyncio.to_thread(lambda: {each.parser: each.memory() for each in self._mirrors})
        self.figures.memory.append((self.figures.requests, held))
        for mirror in self._mirrors:
            if mirror.bounds != "default":
                samples = self.figures.live.setdefault(mirror.parser, [])
                samples.append((self.figures.requests, await asyncio.to_thread(mirror.live)))
        self.figures.seconds = time.monotonic() - self._began

    async def _client(self, waiting: Iterable[Case]) -> None:
        for case in waiting:
            self.figures.failures += await self.judge(case)
            self.figures.cases += 1
            self.figures.labels[case.label] += 1
            self.figures.requests += len(case.requests) * len(self._mirrors)

    async def judge(self, case: Case) -> list[Failure]:
        """Run one case at every mirror, and return what is wrong."""
        heard = await asyncio.gather(
            *(Conversation.hold(case, "127.0.0.1", mirror.port) for mirror in self._mirrors)
        )
        failures = []
        for mirror, each in zip(self._mirrors, heard, strict=True):
            self.figures.statuses.update(each.statuses)
            failures += [Failure(case, mirror.parser, text) for text in faults_of(case, each)]
        return failures + self._difference(case, heard)

    def _difference(self, case: Case, heard: Sequence[Heard]) -> list[Failure]:
        """Compare the statuses of the parsers."""
        if len(heard) < 2 or not case.comparable or heard[0].statuses == heard[1].statuses:
            return []
        if any(
            each.end == "reset" for each in heard
        ):  # judged by the oracle; which answers arrived is chance
            return []
        if not case.damaged and any(_is_conditional(each.data) for each in case.requests):
            return []
        reason = reason_of(case.data(), heard[0].statuses, heard[1].statuses)
        if reason is not None:
            self.figures.differences[reason] += 1
            return []
        return [Failure(case, "both", f"the parsers differ: {heard[0].statuses} and {heard[1].statuses}")]

    async def _read_logs(self, cases: Sequence[Case]) -> None:
        """Find forbidden lines, and the cases that cause them, by running each case alone."""
        for mirror in self._mirrors:
            lines = await asyncio.to_thread(mirror.forbidden_lines)
            if mirror.worker_pids() != self._workers[mirror.parser]:
                lines.append("a worker has ended")
                self._workers[mirror.parser] = mirror.worker_pids()
            if not lines:
                continue
            guilty = await self._find_guilty(mirror, cases)
            self.figures.failures.append(Failure(guilty or cases[0], mirror.parser, f"log: {lines[0]}"))

    async def _find_guilty(self, mirror: MirrorUnderTest, cases: Sequence[Case]) -> Case | None:
        for case in cases:
            if await self.logs(mirror, case):
                return case
        return None

    async def logs(self, mirror: MirrorUnderTest, case: Case) -> list[str]:
        """Return the forbidden lines that a case causes alone."""
        await Conversation.hold(case, "127.0.0.1", mirror.port)
        return await asyncio.to_thread(mirror.forbidden_lines)

    async def _rest(self) -> dict[str, Resources]:
        found = await asyncio.gather(*(asyncio.to_thread(each.at_rest) for each in self._mirrors))
        return {mirror.parser: each for mirror, each in zip(self._mirrors, found, strict=True)}

    def _compare_rest(self) -> None:
        for parser, before in self.figures.before.items():
            after = self.figures.after[parser]
            for name in ("memory", "descriptors", "threads", "tasks"):
                more = getattr(after, name) - getattr(before, name)
                if more > getattr(GROWTH, name):
                    text = f"{name} at rest: {more} more than after the first rounds ({before}; {after})"
                    self.figures.failures.append(Failure(case_of(self.seed, 0), parser, text))

    def _judge_level(self) -> None:
        """Compare what mirrors with small bounds held in the course of the run."""
        for mirror in self._mirrors:
            of_each = [
                (count // len(self._mirrors), held)
                for count, held in self.figures.live.get(mirror.parser, [])
            ]
            if (fault := level_fault(of_each, mirror.workers)) is not None:
                self.figures.failures.append(Failure(case_of(self.seed, 0), mirror.parser, fault))


def _is_conditional(data: bytes) -> bool:
    """Tell whether the answer depends on what each mirror happens to hold: a listing of its cache."""
    return b"/_catalog" in data
