"""The way of a cold blob in docs/architecture.md, compared with what one request really calls."""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType

import pytest

from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, LARGE_DATA, mirror_of
from tests.wire import Wire

ROOT = Path(__file__).parent.parent.parent
PACKAGE = f"{ROOT}/mirror/"

# The most files that a reader has to open.
MOST_FILES = 25

# Modules that run work for others: a call from there is one by the caller that handed the work over.
RUNNERS = re.compile(r"util/|store/(executor|guard|recovery|health)\.py|upstream/retry\.py")

pytestmark = pytest.mark.slow  # the calls of all threads are noted

Name = tuple[str, str]  # file below `mirror`, and qualified name


class Calls:
    """The functions of the mirror that were called, in the order of their first calls, with their callers."""

    def __init__(self) -> None:
        self.callers: dict[Name, set[str]] = {}
        self.lambdas: set[tuple[Name, str]] = set()  # and who calls each
        self.on = False
        self._names: dict[CodeType, Name | None] = {}

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """Note a call, as `sys.setprofile` reports it."""
        if self.on and event == "call" and (name := self._name(frame.f_code)) is not None:
            self.callers.setdefault(name, set()).add(self._caller(frame, RUNNERS))
            if "<lambda>" in name[1]:
                self.lambdas.add((name, self._caller(frame)))

    def _caller(self, frame: FrameType, without: re.Pattern[str] = re.compile(r"$^")) -> str:
        """Return the file of the mirror that calls, none of those `without`; empty for a task or a thread."""
        before = frame.f_back
        while before is not None:
            name = self._name(before.f_code)
            if name is not None and not without.match(name[0]):
                return name[0]
            before = before.f_back
        return ""

    def _name(self, code: CodeType) -> Name | None:
        if code not in self._names:
            ours = code.co_filename.startswith(PACKAGE)
            self._names[code] = (code.co_filename[len(PACKAGE) :], code.co_qualname) if ours else None
        return self._names[code]

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the calls of this thread, and of those that noted calls from their beginning."""
        self.on = True
        before = sys.getprofile()
        sys.setprofile(self.note)
        try:
            yield
        finally:
            sys.setprofile(before)
            self.on = False


def steps() -> list[list[Name]]:
    """The functions of each numbered line of the document, each line about one file."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    text = text.split("The way in twenty-five files")[1].split("What these ask and do not follow")[0]
    lines = re.split(r"^\d+\. ", text, flags=re.MULTILINE)[1:]
    return [re.findall(r"`mirror/([\w/]+\.py)::([\w.]+)`", line) for line in lines]


@pytest.fixture
async def calls(fake: FakeRegistry, tmp_path: Path) -> Calls:
    """A client gets a cold layer whose manifest it has; the second half comes once the client has bytes."""
    calls = Calls()
    threading.setprofile(calls.note)  # for the disk threads, which begin with the mirror
    try:
        image = fake.add_image("library/x", "t", [LARGE_DATA])
        layer = image.layers[0]
        gate = fake.hold(layer, after=LARGE // 2)
        async with mirror_of(fake, tmp_path) as mirror, await Wire.open(mirror.address) as wire:
            wire.send("GET", "/v2/library/x/manifests/t")
            assert (await wire.reply()).status == 200
            with calls.noted():
                wire.send("GET", f"/v2/library/x/blobs/{layer}")
                assert (await wire.head()).status == 200
                await wire.reader.readexactly(1)
                gate.release()
                assert await wire.reader.readexactly(LARGE - 1) == LARGE_DATA[1:]
                await mirror.landed(layer)
    finally:
        threading.setprofile(None)
    return calls


def test_way_of_a_cold_blob_is_as_documented(calls: Calls) -> None:
    """Each step is taken, in this order, and can be found from the files before it."""
    assert [step for step in steps() if len({file for file, _ in step}) != 1] == []
    assert [name for step in steps() for name in step if name not in calls.callers] == []
    order = list(calls.callers)
    firsts = [order.index(step[0]) for step in steps()]
    assert [steps()[at][0] for at in range(1, len(firsts)) if firsts[at] < firsts[at - 1]] == []
    files = {step[0][0] for step in steps()}
    read, known = "", set[str]()
    for at, step in enumerate(steps()):
        read += (ROOT / "mirror" / step[0][0]).read_text()
        known.add(step[0][0])
        for name in step:
            # aiohttp calls the first two; a task or a thread has a function that a file before names.
            begun = "" in calls.callers[name] and (at < 2 or name[1].rpartition(".")[2] in read)
            here = known if name == step[0] else files  # later functions may be called from further down
            assert begun or calls.callers[name] & here, f"{name} is called by {calls.callers[name]}"
    assert len(files) == len(steps()) <= MOST_FILES
    packages = [
        (name, user) for name, user in calls.lambdas if user and user.split("/")[0] != name[0].split("/")[0]
    ]
    assert packages == [], "lambdas that one package handed to another"
