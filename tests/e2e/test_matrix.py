"""Clients, old and new, in all their ways and all states of the cache: each image arrives whole, and once.

`--write-matrix` writes the table that this run has seen into docs/clients.md.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

import pytest

from tests.e2e.images import Pusher
from tests.e2e.matrix.content import LARGE, SMALL, Content, push_helm_chart, push_list
from tests.e2e.matrix.roster import CELLS, Cell, known
from tests.e2e.matrix.stage import Stage, Weather, stage
from tests.e2e.matrix.table import MATRIX, Matrix
from tests.e2e.origin import unprotected
from tests.e2e.processes import wait_until
from tests.leftovers import short_folder
from tests.parallel import lines
from tests.pinned import missing
from tests.programs import MISSING_CLIENTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker-registry", "nginx", root=True),
    pytest.mark.timeout(300),
]


@dataclass
class Theatre:
    """Stage, and the images that are pulled, pushed when the first test needs them."""

    stage: Stage
    matrix: Matrix
    to: Pusher
    _pushed: dict[str, Content] = field(default_factory=dict)
    _pulled: set[Cell] = field(default_factory=set)
    _count: Iterator[int] = field(default_factory=lambda: count(1))

    def content(self, name: str, size: int = SMALL, chart: bool = False) -> Content:
        """Return the image of a name, or a chart."""
        if name not in self._pushed:
            push = push_helm_chart if chart else push_list
            self._pushed[name] = push(self.to, f"library/{name}", name, size)
        return self._pushed[name]

    def own(self, cell: Cell) -> Content:
        """Return the image that only the client of a cell pulls."""
        return self.content(cell.name, chart=cell.client.chart)

    def pull(self, cell: Cell, content: Content) -> str:
        """Pull by the client of a cell; return the complaint."""
        folder = self.stage.folder / f"pull{next(self._count)}"
        return cell.client.pull(self.stage, cell.way, content, folder)

    def miss(self, cell: Cell) -> str:
        """Pull the image of a cell for the first time."""
        self._pulled.add(cell)
        return self.pull(cell, self.own(cell))

    def cached(self, cell: Cell) -> Content:
        """Return the image of a cell, which has been pulled."""
        if cell not in self._pulled:
            self.stage.become(Weather.FAIR)
            self.miss(cell)
        return self.own(cell)

    def await_downloads(self, content: Content) -> None:
        """Wait until the CDN has noted each blob, which it does after the client has the last byte."""
        wait_until(
            lambda: all(self.downloads(content).get(digest, 0) >= 1 for digest in content.blobs),
            f"downloads of {content.name} in the CDN's log",
        )

    def outcomes(self, content: Content, kind: str) -> list[str]:
        """Return what the mirror says of the requests for an image's manifests or blobs, in their order."""
        lines = self.stage.mirror.lines(content.name)
        return [str(line.get("outcome")) for line in lines if line.get("kind") == kind]

    def downloads(self, content: Content) -> dict[str, float]:
        """Return how often each blob of an image was downloaded from the origin."""
        counts = self.stage.hub.counts()
        return {digest: counts[digest] for digest in content.blobs | content.optional if digest in counts}


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Theatre]:
    storage, push = tmp_path_factory.mktemp("storage"), tmp_path_factory.mktemp("push")
    with (
        unprotected(storage, push) as url,
        short_folder() as folder,
        stage(storage, folder) as running,
    ):
        yield Theatre(running, pytestconfig.stash[MATRIX], Pusher(url))


def cells(state: str) -> pytest.MarkDecorator:
    """Run a test for each cell whose client is installed; where a failure is known, a success fails."""
    rows = [
        pytest.param(cell, id=str(cell), marks=_marks(cell, state)) for cell in CELLS if cell.client.installed
    ]
    return pytest.mark.parametrize("cell", rows)


def _marks(cell: Cell, state: str) -> list[pytest.MarkDecorator]:
    reason, needs = known(cell, state), pytest.mark.needs(*cell.client.needs)
    return [needs, pytest.mark.xfail(reason=reason, strict=True)] if reason else [needs]


def test_pinned_clients_are_installed(pytestconfig: pytest.Config) -> None:
    """Name the clients that this run could not drive: `.ci/clients` makes them."""
    lines(pytestconfig, MISSING_CLIENTS).extend(str(client) for client in missing())
    if missing():
        pytest.skip(f"not installed, .ci/clients makes them: {', '.join(map(str, missing()))}")


@cells("miss")
def test_matrix_miss(theatre: Theatre, cell: Cell) -> None:
    """The first pull brings the whole image, and each blob comes once from the upstream."""
    theatre.stage.become(Weather.FAIR)
    mark = theatre.stage.tap.mark()
    with theatre.matrix.cell(cell, "miss"):
        said = theatre.miss(cell)
        assert said == "", asked(theatre, mark)
        theatre.await_downloads(theatre.own(cell))
        assert set(theatre.downloads(theatre.own(cell)).values()) == {1.0}


@cells("join")
def test_matrix_join(theatre: Theatre, cell: Cell) -> None:
    """A pull that comes while a layer is on its way joins, and the layer comes once from the upstream."""
    theatre.stage.become(Weather.FAIR)
    content = theatre.content(f"joined-{cell.name}", LARGE, cell.client.chart)
    layer = content.layers[0]
    theatre.stage.gate.shut()
    mark = theatre.stage.tap.mark()
    with theatre.matrix.cell(cell, "join"), ThreadPoolExecutor(1) as pool:
        try:
            with theatre.stage.first_reader(content):
                pulling = pool.submit(theatre.pull, cell, content)
                pulling.add_done_callback(lambda _: theatre.stage.tap.wake())
                theatre.stage.tap.await_response(mark, layer.removeprefix("sha256:"), pulling.done)
                theatre.stage.gate.open()
                assert pulling.result() == "", asked(theatre, mark)
        finally:
            theatre.stage.gate.open()
        theatre.await_downloads(content)
        assert theatre.downloads(content)[layer] == 1.0


@cells("hit")
def test_matrix_hit(theatre: Theatre, cell: Cell) -> None:
    """A second pull asks the upstream for nothing."""
    content = theatre.cached(cell)
    theatre.stage.become(Weather.FAIR)
    before, mark = theatre.stage.hub.mark(), theatre.stage.tap.mark()
    with theatre.matrix.cell(cell, "hit"):
        assert theatre.pull(cell, content) == "", asked(theatre, mark)
        assert theatre.stage.hub.mark() == before, asked(theatre, mark)


@cells("stale")
def test_matrix_stale(theatre: Theatre, cell: Cell) -> None:
    """A pull of an expired tag succeeds although the upstream is down."""
    content = theatre.cached(cell)
    theatre.stage.become(Weather.DOWN)
    mark = theatre.stage.tap.mark()
    with theatre.matrix.cell(cell, "stale"):
        assert theatre.pull(cell, content) == "", asked(theatre, mark)
        assert "stale" in theatre.outcomes(content, "manifest")


@cells("offline")
def test_matrix_offline(theatre: Theatre, cell: Cell) -> None:
    """A pull from a mirror that asks no upstream succeeds."""
    content = theatre.cached(cell)
    theatre.stage.become(Weather.OFFLINE)
    mark = theatre.stage.tap.mark()
    with theatre.matrix.cell(cell, "offline"):
        assert theatre.pull(cell, content) == "", asked(theatre, mark)


def test_matrix_herd_of_all_clients_is_one_download(theatre: Theatre) -> None:
    """Every client, each by its first way, pulls one image at the same time: each blob comes once."""
    theatre.stage.become(Weather.FAIR)
    firsts = {cell.client.name: cell for cell in reversed(CELLS) if cell.client.installed}
    # `ctr --local` has the images of its daemon in common with the transfer service.
    herd = [cell for cell in firsts.values() if not cell.client.chart and "`--local`" not in cell.client.name]
    shared = theatre.content("shared", LARGE)
    with ThreadPoolExecutor(len(herd)) as pool:
        pulls = {str(cell): pool.submit(theatre.pull, cell, shared) for cell in herd}
        assert {name: pull.result() for name, pull in pulls.items()} == dict.fromkeys(pulls, "")
    theatre.await_downloads(shared)
    # A busy machine may make the mirror give up a connection: bytes in its buffers come again then, no more.
    assert all(1 <= times < 1.25 for times in theatre.downloads(shared).values())


def asked(theatre: Theatre, mark: int) -> str:
    """Return what the client asked the mirror for, for the report of a failure."""
    return "\n".join(map(str, theatre.stage.tap.since(mark)))
