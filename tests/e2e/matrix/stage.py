"""Stage of the matrix: an origin that can be taken away, a mirror that can be offline, and a tap."""

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from threading import Lock
from typing import TypeVar

from tests.e2e.matrix.content import Content
from tests.e2e.matrix.gate import Gate, gate
from tests.e2e.matrix.tap import Tap, tap
from tests.e2e.mirror import Mirror
from tests.e2e.origin import Origin, origin

T = TypeVar("T")

# Upstream beside docker.io, the default: a client must name it.
OTHER = "hub.test"

CONFIG = """
[server]
offline = {offline}

[tags]
fresh = {fresh}
missing = 3600

[[upstream]]
name = "docker.io"
url = "{url}"

[[upstream]]
name = "{other}"
url = "{url}"
"""


class Weather(Enum):
    """Condition of the mirror and of its upstreams."""

    FAIR = "upstream there, tags are fresh for an hour"
    DOWN = "upstream refuses connections, tags have expired"
    OFFLINE = "mirror asks no upstream"


@dataclass
class Stage:
    """Origin, gate, mirror, tap, and daemons of clients, started when the first test needs one."""

    folder: Path
    hub: Origin
    gate: Gate
    mirror: Mirror
    tap: Tap
    weather: Weather
    _stack: ExitStack
    _daemons: dict[str, object] = field(default_factory=dict)
    _starting: Lock = field(default_factory=Lock)

    @property
    def address(self) -> str:
        """Address of the mirror for clients."""
        return self.tap.address

    def daemon(self, name: str, start: Callable[[Path], Iterator[T]]) -> T:
        """Return the client that the generator `start` yields for a folder, running until the end."""
        with self._starting:
            if name not in self._daemons:
                running = contextmanager(start)(self.folder / name)
                self._daemons[name] = self._stack.enter_context(running)
            return self._daemons[name]  # type: ignore[return-value]

    def become(self, weather: Weather) -> None:
        """Change origin and mirror; the cache stays."""
        if weather is self.weather:
            return
        self.mirror.stop()
        for each in (self.hub.registry, self.hub.cdn):
            if (weather is Weather.FAIR) != each.running:
                each.stop() if each.running else each.start()
        self._configure(weather)
        self.mirror.start()
        self.weather = weather

    def _configure(self, weather: Weather) -> None:
        (self.folder / "mirror.toml").write_text(configuration(self.hub.url, weather))

    @contextmanager
    def first_reader(self, content: Content) -> Iterator[None]:
        """Ask the mirror for the layer of an image, and read the first bytes; the rest comes at the end."""
        url = f"{self.mirror.url}/{OTHER}/v2/{content.name}"
        with urllib.request.urlopen(f"{url}/manifests/{content.tag}") as manifest:
            manifest.read()
        with urllib.request.urlopen(f"{url}/blobs/{content.layers[0]}") as layer:
            assert layer.read(1000)
            yield
            layer.read()


def configuration(url: str, weather: Weather) -> str:
    return CONFIG.format(
        url=url,
        other=OTHER,
        offline=str(weather is Weather.OFFLINE).lower(),
        fresh=0 if weather is Weather.DOWN else 3600,
    )


@contextmanager
def stage(storage: Path, folder: Path) -> Iterator[Stage]:
    """Run origin and mirror. `folder` needs a short name: it holds sockets."""
    with ExitStack() as stack:
        closable = stack.enter_context(gate())
        hub = stack.enter_context(origin(storage, folder / "origin", cdn=closable))
        (folder / "mirror.toml").write_text(configuration(hub.url, Weather.FAIR))
        mirror = Mirror(folder / "mirror", hub.url, "--config", folder / "mirror.toml")
        stack.enter_context(mirror)
        door = stack.enter_context(tap(mirror.port))
        yield Stage(folder, hub, closable, mirror, door, Weather.FAIR, stack)
