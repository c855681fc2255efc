"""Foundation of the scenarios: content, origins, contestants started cold or kept warm, and results."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

from tests.bench.client import Trouble, fetch
from tests.bench.content import Site
from tests.bench.contestants import (
    ALONE,
    BASE,
    DISTRIBUTION_3,
    FAST,
    MIRROR,
    ONE_WORKER,
    WITHOUT_RULES,
    Running,
    Setup,
    running,
)
from tests.bench.machine import settle
from tests.bench.origin import Origin, fast_origin, slow_origin
from tests.bench.report import Results, shown
from tests.bench.throttle import Line
from tests.pinned import pinned

# The mirror in another configuration. Scenarios that compare with it take no other build.
VARIANTS = {ALONE, ONE_WORKER, FAST, WITHOUT_RULES}


@dataclass(frozen=True)
class Options:
    rounds: int = 3
    quick: bool = False
    small: int = 10_000
    base: Path | None = None  # another checkout with a .venv, which takes part as BASE
    abuse: float = 10  # seconds of each abuse

    @property
    def seconds(self) -> int:
        """Duration of one measurement of a rate."""
        return 1 if self.quick else 4

    @property
    def abuse_seconds(self) -> float:
        return 2 if self.quick else self.abuse


class Bench:
    """One run. `number` is the round, from 1."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.options = options
        self.site = Site(folder / "site", options.quick)
        self.results = Results()
        self.number = 1
        self._folder = folder
        self._names = count(1)
        self._stack = ExitStack()
        self._warm: dict[str, Running] = {}
        self._warm_origin: Origin | None = None

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Add a note for readers of the table, once."""
        if text not in self.results.notes:
            self.results.notes.append(text)
            self.say(f"  note: {text}")

    def add(self, row: str, contestant: str, value: float) -> None:
        self.results.add(row, contestant, self.number, value)
        self.say(f"  {row}: {contestant} {shown(value)}")

    def turns(self, *names: str) -> Iterator[str]:
        """Yield the contestants, another one first in every round, each with an idle disk."""
        if self.options.base is not None and MIRROR in names and not VARIANTS.intersection(names):
            names = (*names, BASE)
        if DISTRIBUTION_3 in names and not pinned()["distribution"].installed:
            self.note("distribution 3 took no part: .ci/clients makes it")
            names = tuple(name for name in names if name != DISTRIBUTION_3)
        first = (self.number - 1) % len(names)
        for name in (*names[first:], *names[:first]):
            settle()
            yield name

    @contextmanager
    def attempt(self, work: str, name: str) -> Iterator[None]:
        """Give a contestant that fails a note instead of a figure; the others go on."""
        try:
            yield
        except (Trouble, AssertionError, OSError, SubprocessError) as error:
            reason = " ".join(str(error).split())[:300]
            self.note(f"{work}, round {self.number}: {name} failed: {reason or type(error).__name__}")

    def origin(self, *, secure: bool = False) -> AbstractContextManager[Origin]:
        """Return an origin at full speed, over TLS if `secure`. Start it after making its content."""
        return fast_origin(self.site, self.folder(), secure=secure)

    def behind(self, line: Line) -> AbstractContextManager[Origin]:
        """Return an origin at the other end of a line."""
        return slow_origin(self.site, self.folder(), line)

    @contextmanager
    def cold(self, name: str, origin: Origin, config: str = "", **more: Any) -> Iterator[Running]:
        """Run a contestant with an empty cache, which is removed afterwards. `more` as in Setup."""
        folder = self.folder()
        folder.mkdir()
        try:
            with running(
                name, Setup(origin, self.site, folder, config, base=self.options.base, **more)
            ) as server:
                yield server
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def warm(self, name: str) -> Running:
        """Return a contestant that has cached `site.warm`, all of it checked. It runs until `cool`."""
        image = self.site.warm
        if self._warm_origin is None:
            self._warm_origin = self._stack.enter_context(self.origin())
        if name not in self._warm:
            server = self._stack.enter_context(self.cold(name, self._warm_origin))
            fetch(server, image.by_tag)
            fetch(server, image.by_digest)
            for blob in (image.config, *image.layers):
                check(server, blob.path)
            self._warm[name] = server
        return self._warm[name]

    def cool(self) -> None:
        """End the warm contestants."""
        self._stack.close()
        self._warm.clear()
        self._warm_origin = None

    def folder(self) -> Path:
        """Return the path of a new folder with a unique name."""
        return self._folder / str(next(self._names))


def check(server: Running, path: str) -> None:
    """Raise Trouble if the blob or manifest at this path does not hash to its name."""
    if fetch(server, path, verify=True).digest != path.rpartition("/")[2]:
        raise Trouble(f"wrong bytes at {path}")
