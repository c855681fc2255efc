"""Types of option values: how each is written, parsed and printed, and the error for a wrong value."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, TypeAdapter
from pydantic_core import ErrorDetails, PydanticCustomError

from mirror.oci.registries import canonical_host

# A host name, with a port or without, as clients write it in front of a repository.
HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")

# More processes only slow each other down: all of them share one index, which has one writer at a time.
MAX_WORKERS = 64

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
AMOUNT_OF_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhd])\s*")
TIME = re.compile(rf"(?:{AMOUNT_OF_TIME.pattern})+")

BYTES = {
    **{unit: 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)},
    **{unit: 1000**power for power, unit in enumerate(("MB", "GB", "TB"), 2)},
}

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Unit:
    """Marker of a type whose values have a unit: the unit's name, and a function that prints a value."""

    name: str
    format: Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of bytes, or a percentage of a file system."""

    bytes: int = 0
    percent: float = 0.0

    def of(self, total: int) -> int:
        """Return the amount in bytes on a file system of `total` bytes."""
        return int(total * self.percent / 100) if self.percent else self.bytes

    def __str__(self) -> str:
        return f"{self.percent:g}%" if self.percent else str(self.bytes)


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


def _refuse_bool(value: object) -> object:
    """Refuse true, which is the number 1 in Python and in pydantic."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _parse_time(value: object) -> object:
    """Return the seconds of a number or of a time with units."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = value.strip() if isinstance(value, str) else ""
    if TIME.fullmatch(text):
        return sum(float(number) * SECONDS[unit] for number, unit in AMOUNT_OF_TIME.findall(text))
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    raise PydanticCustomError("time", "not a time")


def _parse_time_or_forever(value: object) -> object:
    """Return the seconds of a time, or infinity for "forever", for which TOML has no readable number."""
    if value == "forever":
        return FOREVER
    try:
        return _parse_time(value)
    except PydanticCustomError:
        raise PydanticCustomError("time_or_forever", "not a time") from None


def _refuse_empty(value: object) -> object:
    """Refuse "", which would mean the current folder."""
    if value == "":
        raise ValueError("is empty: give a path, for instance /srv/mirror")
    return value


def _expand(value: Path) -> Path:
    try:
        return value.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{value}: {error}") from None


def _check_readable(value: Path) -> Path:
    """Refuse an unreadable file at the start rather than at the first request."""
    try:
        with value.open("rb"):
            return value
    except OSError as error:
        raise ValueError(f"{value} cannot be read: {error.strerror}") from None


def _check_host_name(value: str) -> str:
    if value.startswith("[") and (address := canonical_host(value)) is not None:
        return address  # IPv6, in its one spelling
    if HOST.fullmatch(value) is None:
        raise ValueError(
            f"{value!r} is not a host name in lower case, for instance quay.io, r.lan:5000 or [::1]:5000"
        )
    return value


def _parse_processes(value: object) -> object:
    """Return a number of processes, or "auto"."""
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,3}", value) else value
    if number != "auto" and (type(number) is not int or not 1 <= number <= MAX_WORKERS):
        raise ValueError(f'must be "auto" or a whole number from 1 to {MAX_WORKERS}, not {value!r:.80}')
    return number


def _parse_amount(value: object) -> Amount:
    if isinstance(value, Amount):
        return value
    if isinstance(value, str) and value.strip().endswith("%"):
        share = value.strip().removesuffix("%")
        if re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", share) and 0 < float(share) <= 100:
            return Amount(percent=float(share))
        raise PydanticCustomError("byte_size", "not a percentage")
    return Amount(_size_adapter().validate_python(value))


@cache
def _size_adapter() -> TypeAdapter[ByteSize]:
    """Return a validator of sizes, built at first use."""
    return TypeAdapter(Size)


Number = BeforeValidator(_refuse_bool)
Strings = Annotated[tuple[str, ...], BeforeValidator(_split_list)]
HostName = Annotated[str, AfterValidator(_check_host_name)]
Hosts = Annotated[tuple[HostName, ...], BeforeValidator(_split_list)]
Duration = Annotated[
    float, BeforeValidator(_parse_time), Field(ge=0, allow_inf_nan=False), Unit("time", format_time)
]
DurationOrForever = Annotated[
    float, BeforeValidator(_parse_time_or_forever), Field(ge=0), Unit('time or "forever"', format_time)
]
Timeout = Annotated[
    float, BeforeValidator(_parse_time), Field(gt=0, allow_inf_nan=False), Unit("time", format_time)
]
Attempts = Annotated[int, Number, Field(ge=1, le=100)]
Size = Annotated[ByteSize, Number, Unit("size", format_size)]
Processes = Annotated[int | Literal["auto"], BeforeValidator(_parse_processes)]
DiskSpace = Annotated[Amount, BeforeValidator(_parse_amount), Unit("size or percentage", format_amount)]
Folder = Annotated[Path, BeforeValidator(_refuse_empty), AfterValidator(_expand)]
ReadableFile = Annotated[Folder, AfterValidator(_check_readable)]


# How times are written, for the error about a time that is not.
TIME_EXAMPLES = "must be a time, for instance 500ms, 30s, 10m, 1h or 2d (a plain number is seconds)"

# Words in place of pydantic's, by the beginning of the error's type. The refused value follows.
REASONS = {
    "byte_size": "must be a size, for instance 50GiB, 500MB or 0 (for the room on the disk also 80%)",
    "time_or_forever": f'{TIME_EXAMPLES}, or "forever"',
    "time": TIME_EXAMPLES,
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "string_type": "must be text in quotes",
    "string_pattern": "must be the beginning of repository names, for instance docker.io",
    "tuple": "must be a list of texts in quotes",
    "path": "must be a path in quotes",
    "bool": "must be true or false",
    "int": "must be a whole number",
    "float": "must be a number",
    "model": "must be a table of options",
}


def reason(error: ErrorDetails) -> str:
    """Return a validation error in the words of the file.

    The refused value is appended unless the value is long or may be a secret.
    """
    kind = error["type"]
    words = next((words for start, words in REASONS.items() if kind.startswith(start)), None)
    if words is None:
        return error["msg"].removeprefix("Value error, ")
    context: dict[str, Any] = error.get("ctx", {})
    value = error["input"]
    shown = isinstance(value, str | int | float) and "password" not in error["loc"]
    return words.format(**context) + (f", not {value!r:.80}" if shown else "")
