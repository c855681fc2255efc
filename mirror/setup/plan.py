"""Values of a setup: the mirror, the client's version, its existing files, and what to write."""

import os
import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path

from msgspec import Struct

# The first number of a program's version, with what follows it: "containerd github.com/... 1.6.20~ds1".
VERSION = re.compile(r"(?<![\w.])v?([0-9]+)\.([0-9]+)(?:\.([0-9]+))?")

DOCKER_HUB = "docker.io"

# Longest configuration file that is read, in bytes.
LONGEST = 4 * 1024 * 1024


class SetupError(Exception):
    """A setup that cannot be done; the message says why and what to do."""


class Version(Struct, frozen=True, order=True):
    """Version of a client, as far as a writer decides by it."""

    major: int
    minor: int = 0
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> "Version | None":
        """Return the first version in the text of `--version`; None if there is none."""
        found = VERSION.search(text)
        return None if found is None else cls(*(int(each or 0) for each in found.groups()))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


class UpstreamEntry(Struct, frozen=True):
    """A registry that the mirror has."""

    name: str
    aliases: tuple[str, ...] = ()


class Mirror(Struct, frozen=True):
    """The mirror that the client is to use.

    `address` is HOST:PORT as clients reach it; the first of `upstreams` is the default one; `ca` is the PEM
    of a CA that the client's system does not know, or None.
    """

    address: str
    tls: bool
    upstreams: tuple[UpstreamEntry, ...]
    ca: str | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}"

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0]

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine reaches the address."""
        host = self.host.strip("[]")
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def has_docker_hub(self) -> bool:
        return any(each.name == DOCKER_HUB for each in self.upstreams)

    def is_named(self, url: str) -> bool:
        """Return whether `url`, with a scheme and a path or without, is of this mirror."""
        return url.partition("://")[2].partition("/")[0] == self.address or (
            "://" not in url and url.partition("/")[0] == self.address
        )


class File(Struct, frozen=True):
    """A file of a plan. `path` is absolute, below the root of the system."""

    path: str
    text: str
    mode: int = 0o644


class SetupPlan(Struct, frozen=True):
    """Result of a writer: the needs of a client.

    `commands` make the client read the files, `arguments` are for its command line where no file will do,
    `notes` are what the operator should know.
    """

    files: tuple[File, ...]
    commands: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Root:
    """The files of a system below a folder, "/" or the root of an image."""

    def __init__(self, folder: Path = Path("/")) -> None:
        self.folder = folder

    def place(self, path: str) -> Path:
        """Return where an absolute path of the system is.

        Raises SetupError for a path that leads out of the folder, by a link in an image or by `..`: what is
        in an image must not make root write to the files of this machine.
        """
        place = self.folder / path.lstrip("/")
        folder = os.path.realpath(self.folder)
        if not Path(os.path.realpath(place)).is_relative_to(folder):
            raise SetupError(f"{place} leads out of {folder}: put a file there instead of the link")
        return place

    def text(self, path: str) -> str | None:
        """Return the text of a file; None if there is none. Raises SetupError if it cannot be read."""
        place = self.place(path)
        try:
            with place.open("rb") as file:
                data = file.read(LONGEST + 1)
            if len(data) > LONGEST:
                raise SetupError(f"{place} is larger than {LONGEST} bytes: is it a configuration file?")
            return data.decode()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except UnicodeDecodeError:
            raise SetupError(f"{place} is not text in UTF-8: mend it first") from None
        except OSError as error:
            raise SetupError(f"{place} cannot be read: {error.strerror}") from None

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; none if there is no such folder."""
        try:
            return sorted(each.name for each in self.place(path).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise SetupError(f"{self.place(path)} cannot be read: {error.strerror}") from None


class Request(Struct, frozen=True):
    """Input of a writer.

    `file` is the client's main file if it is not at its usual place, `home` the user's folder.
    """

    root: Root
    mirror: Mirror
    version: Version | None = None
    file: str | None = None
    home: str = "/root"

    def at_least(self, major: int, minor: int = 0) -> bool:
        """Return whether the client has this version or a newer one; False if the version is unknown."""
        return self.version is not None and self.version >= Version(major, minor)


def ours_first(ours: str, others: Iterable[object]) -> list[object]:
    """Return a list of mirrors with ours first, and the others in their order below, each once."""
    return [ours, *(each for each in others if each != ours)]


def changed(root: Root, files: Sequence[File]) -> tuple[File, ...]:
    """Return the files that are not there yet with the same text."""
    return tuple(each for each in files if root.text(each.path) != each.text)
