"""Another client: pulls a warm small blob and cold large ones, in a process of its own beside the abuse."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.bench.client import Trouble, fetch
from tests.bench.contestants import Running

# Seconds between two warm requests, and between two cold ones.
WARM_PAUSE, COLD_PAUSE = 0.02, 0.1

# A request is not answered if this many seconds pass without a byte of its response.
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Plan:
    """Work of the probe: one warm path, and cold ones, each of which is requested once."""

    address: str
    warm: str
    cold: Sequence[str]
    seconds: float


@dataclass(frozen=True)
class Seen:
    """Seconds of each request that had a right response, and the number of those that had none."""

    warm: Sequence[float]
    cold: Sequence[float]
    unanswered: int = 0

    @property
    def unanswered_percent(self) -> float:
        asked = len(self.warm) + len(self.cold) + self.unanswered
        return 100 * self.unanswered / asked if asked else 100.0

    @property
    def warm_p99(self) -> float | None:
        """Return the 99th percentile of warm requests; None if there was no response."""
        return percentile(self.warm, 99) if self.warm else None

    def cold_ratio(self, alone: "Seen") -> float | None:
        """Return the median time of a cold blob by that of `alone`; None if one of both has none."""
        if not self.cold or not alone.cold:
            return None
        return median(self.cold) / median(alone.cold)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the least value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def start(plan: Plan) -> "subprocess.Popen[str]":
    """Start the probe; its output is for `seen`."""
    command = [sys.executable, "-m", "tests.bench.probe", json.dumps(asdict(plan))]
    folder = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def seen(output: str) -> Seen:
    return Seen(**json.loads(output))


def run(plan: Plan) -> Seen:
    """Pull until the time is over, at least once each; requests that are under way then are finished."""
    server = Running("probed", plan.address)
    end = time.perf_counter() + plan.seconds
    with ThreadPoolExecutor(2) as pool:
        warm = pool.submit(_warm, server, plan.warm, end)
        cold = pool.submit(_cold, server, plan.cold, end)
        return Seen(warm.result()[0], cold.result()[0], unanswered=warm.result()[1] + cold.result()[1])


def _warm(server: Running, path: str, end: float) -> tuple[list[float], int]:
    """Request `path` at a fixed rate; a response's time begins when its request was due.

    So requests that waited behind a slow one count as slow, as they would from other clients.
    """
    times, unanswered, due = list[float](), 0, time.perf_counter()
    while due < end or not (times or unanswered):
        time.sleep(max(0.0, due - time.perf_counter()))
        if _answered(server, path):
            times.append(time.perf_counter() - due)
            due += WARM_PAUSE
        else:
            unanswered += 1
            due = time.perf_counter() + WARM_PAUSE
    return times, unanswered


def _cold(server: Running, paths: Sequence[str], end: float) -> tuple[list[float], int]:
    times, unanswered = list[float](), 0
    for path in paths:
        started = time.perf_counter()
        if _answered(server, path):
            times.append(time.perf_counter() - started)
        else:
            unanswered += 1
        if time.perf_counter() + COLD_PAUSE >= end:
            break
        time.sleep(COLD_PAUSE)
    return times, unanswered


def _answered(server: Running, path: str) -> bool:
    """Pull once; return whether the response came, whole and with the right bytes."""
    try:
        return fetch(server, path, verify=True, timeout=ANSWER_SECONDS).digest == path.rpartition("/")[2]
    except (Trouble, OSError, ValueError):
        return False


if __name__ == "__main__":
    print(json.dumps(asdict(run(Plan(**json.loads(sys.argv[1]))))))
