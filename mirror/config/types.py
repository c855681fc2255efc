"""Types of option values: how each is written, parsed and printed, and the error for a wrong value."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from mirror.access.rules import parse_network
from mirror.config.validation import After, Before, Parse, WrongForm
from mirror.oci.image_pattern import PLATFORM
from mirror.oci.registries import canonical_host, split_port

# A host name, with a port or without, as clients write it in front of a repository: labels of DNS.
LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
HOST = re.compile(rf"{LABEL}(\.{LABEL})*(:[0-9]{{1,5}})?")

MAX_PORT = 65_535

# More processes only slow each other down: all of them share one index, which has one writer at a time.
MAX_WORKERS = 64

# When layers are prefetched; and the most at a time that can be asked for.
PREFETCH_WAYS = ("layer", "manifest", "off")
MAX_PREFETCHES = 64

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
AMOUNT_OF_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhd])\s*")
TIME = re.compile(rf"(?:{AMOUNT_OF_TIME.pattern})+")

BYTES = {
    **{unit: 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)},
    **{unit: 1000**power for power, unit in enumerate(("MB", "GB", "TB"), 2)},
}

# A size: number, prefix of the unit, "i" of a binary prefix, unit.
SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(?:([KMGTPE])(I(?=B))?)?(BIT|B)?\s*", re.IGNORECASE)
PREFIXES = ("", "k", "m", "g", "t", "p", "e")

# How sizes and times are written, for the errors about those that are not.
SIZE_EXAMPLES = "must be a size, for instance 50GiB, 500MB or 0 (for the room on the disk also 80%)"
TIME_EXAMPLES = "must be a time, for instance 500ms, 30s, 10m, 1h or 2d (a plain number is seconds)"

FOREVER = float("inf")


class Unit(Struct, frozen=True):
    """Marker of a type whose values have a unit: the unit's name, and a function that prints a value."""

    name: str
    format: Callable[[Any], str]


class Amount(Struct, frozen=True):
    """A number of bytes, or a percentage of a file system."""

    bytes: int = 0
    percent: float = 0.0

    def of(self, total: int) -> int:
        """Return the amount in bytes on a file system of `total` bytes."""
        return int(total * self.percent / 100) if self.percent else self.bytes

    def __str__(self) -> str:
        return f"{self.percent:g}%" if self.percent else str(self.bytes)


class SecretStr:
    """Text that is neither printed nor logged."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """Return the text."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return "**********"

    def __repr__(self) -> str:
        return f"SecretStr('{self}')"


def format_size(size: int) -> str:
    """Return `size`, in bytes, in the unit that gives the smallest whole number: "1GiB", "500MB", "1001"."""
    fitting = [(size // each, unit) for unit, each in BYTES.items() if size % each == 0]
    number, unit = min(fitting) if size and fitting else (size, "")
    return f"{number}{unit}"


def format_amount(amount: Amount) -> str:
    """Return the amount as people write it: "80%", "1GiB"."""
    return str(amount) if amount.percent else format_size(amount.bytes)


def format_time(seconds: float) -> str:
    """Return a duration as people write it: "30s", "1h30m", "500ms", "0s", "forever"."""
    if seconds == FOREVER:
        return "forever"
    if seconds != int(seconds):
        return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"
    rest, parts = int(seconds), []
    for unit in ("d", "h", "m", "s"):
        number, rest = divmod(rest, int(SECONDS[unit]))
        parts += [f"{number}{unit}"] if number else []
    return "".join(parts) or "0s"


def _split_list(value: object) -> object:
    """Split a comma-separated string, as an environment variable has it."""
    return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value


def _parse_time(value: object) -> float:
    """Return the seconds of a number or of a time with units."""
    if (seconds := _seconds(value)) is None:
        raise WrongForm(TIME_EXAMPLES)
    return seconds


def _parse_time_or_forever(value: object) -> float:
    """Return the seconds of a time, or infinity for "forever", for which TOML has no readable number."""
    if value == "forever":
        return FOREVER
    if (seconds := _seconds(value)) is None:
        raise WrongForm(f'{TIME_EXAMPLES}, or "forever"')
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if TIME.fullmatch(text):
        return sum(float(number) * SECONDS[unit] for number, unit in AMOUNT_OF_TIME.findall(text))
    return float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else None


def _refuse_infinite(value: float) -> float:
    if not math.isfinite(value):
        raise WrongForm("must be a finite number")
    return value


def parse_size(value: object) -> int:
    """Return the bytes of a number or of a size with a unit. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    if isinstance(value, int | float) and value >= 0 and value % 1 == 0:
        return int(value)
    match = SIZE.fullmatch(value.replace("_", "")) if isinstance(value, str) else None
    if match is None:
        raise WrongForm(SIZE_EXAMPLES)
    digits, prefix, binary, unit = match.groups(default="")
    number = int(digits) if digits.isdigit() else float(digits)
    factor: int = (1024 if binary else 1000) ** PREFIXES.index(prefix.lower())
    return int(number * factor / 8) if unit.lower() == "bit" else int(number * factor)


def _refuse_empty(value: object) -> object:
    """Refuse "", which would mean the current folder."""
    if value == "":
        raise ValueError("is empty: give a path, for instance /srv/mirror")
    return value


def _parse_path(value: object) -> Path:
    if not isinstance(value, str | Path):
        raise WrongForm("must be a path in quotes")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{value}: {error}") from None


def _parse_secret(value: object) -> SecretStr:
    """Return a secret; no error repeats it."""
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("must be text in quotes")
    return SecretStr(value)


def _check_readable(value: Path) -> Path:
    """Refuse an unreadable file at the start rather than at the first request."""
    try:
        with value.open("rb"):
            return value
    except OSError as error:
        raise ValueError(f"{value} cannot be read: {error.strerror}") from None


def _check_host_name(value: str) -> str:
    """Return the name in its one spelling; refuse what no client can send as a host."""
    name = canonical_host(value) if value.startswith("[") else value
    if name is None or not (name.startswith("[") or HOST.fullmatch(name)):
        raise ValueError(
            f"{value!r} is not a host name in lower case, for instance quay.io, r.lan:5000 or [::1]:5000"
        )
    port = split_port(name)[1]
    if port and not 1 <= int(port) <= MAX_PORT:
        raise ValueError(f"{value!r} has a port that does not exist: give one from 1 to {MAX_PORT}, or none")
    return name


def _check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no network; return each in its one spelling."""
    return tuple(str(parse_network(each)) for each in value)


def _check_platform(value: str) -> str:
    if PLATFORM.fullmatch(value) is None:
        raise ValueError(f"{value!r:.80} is not a platform, for instance linux/amd64 or linux/arm/v7")
    return value


def _parse_processes(value: object) -> object:
    """Return a number of processes, or "auto"."""
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,3}", value) else value
    if number != "auto" and (type(number) is not int or not 1 <= number <= MAX_WORKERS):
        raise ValueError(f'must be "auto" or a whole number from 1 to {MAX_WORKERS}, not {value!r:.80}')
    return number


def _parse_prefetch(value: object) -> object:
    """Return a way to prefetch, or a number of layers."""
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,2}", value) else value
    if number in PREFETCH_WAYS or (type(number) is int and 0 <= number <= MAX_PREFETCHES):
        return number
    raise WrongForm(f'must be "layer", "manifest", "off" or a whole number from 0 to {MAX_PREFETCHES}')


def _parse_amount(value: object) -> Amount:
    if isinstance(value, Amount):
        return value
    if isinstance(value, str) and value.strip().endswith("%"):
        share = value.strip().removesuffix("%")
        if re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", share) and 0 < float(share) <= 100:
            return Amount(percent=float(share))
        raise WrongForm(SIZE_EXAMPLES)
    return Amount(parse_size(value))


Strings = Annotated[tuple[str, ...], Before(_split_list)]
Networks = Annotated[tuple[str, ...], Before(_split_list), After(_check_networks)]
Platform = Annotated[str, After(_check_platform)]
HostName = Annotated[str, After(_check_host_name)]
Hosts = Annotated[tuple[HostName, ...], Before(_split_list)]
Duration = Annotated[
    float, Before(_parse_time), Meta(ge=0), After(_refuse_infinite), Unit("time", format_time)
]
DurationOrForever = Annotated[
    float, Before(_parse_time_or_forever), Meta(ge=0), Unit('time or "forever"', format_time)
]
Timeout = Annotated[
    float, Before(_parse_time), Meta(gt=0), After(_refuse_infinite), Unit("time", format_time)
]
Attempts = Annotated[int, Meta(ge=1, le=100)]
Size = Annotated[int, Parse(parse_size), Unit("size", format_size)]
PrefetchWay = Annotated[int | Literal["layer", "manifest", "off"], Parse(_parse_prefetch)]
Processes = Annotated[int | Literal["auto"], Parse(_parse_processes)]
DiskSpace = Annotated[Amount, Parse(_parse_amount), Unit("size or percentage", format_amount)]
Folder = Annotated[Path, Before(_refuse_empty), Parse(_parse_path)]
ReadableFile = Annotated[Folder, After(_check_readable)]
Password = Annotated[SecretStr, Parse(_parse_secret)]
