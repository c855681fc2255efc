"""What kinds of values options have, and what is said of a value that is of none of them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, PlainSerializer, TypeAdapter
from pydantic_core import ErrorDetails, PydanticCustomError

# A host name, with a port or without, as clients write it in front of a repository.
HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")

# More processes than that only get into each other's way: they share one index, with one writer at a time.
MOST_WORKERS = 64


def _listed(value: object) -> object:
    """A comma-separated string, as an environment variable has it, is a list."""
    return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value


def _not_a_switch(value: object) -> object:
    """In Python, and in pydantic, true is the number 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _expanded(value: Path) -> Path:
    try:
        return value.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{value}: {error}") from None


def _readable(value: Path) -> Path:
    """A file whose content can be had; said at start rather than at the first request."""
    try:
        with value.open("rb"):
            return value
    except OSError as error:
        raise ValueError(f"{value} cannot be read: {error.strerror}") from None


def _host_name(value: str) -> str:
    if HOST.fullmatch(value) is None:
        raise ValueError(
            f"{value!r} is not a host name in lower case, for instance quay.io or registry.lan:5000"
        )
    return value


def _for_ever(value: object) -> object:
    """A word for what TOML has no number for that people would write."""
    return float("inf") if value == "forever" else _not_a_switch(value)


def _processes(value: object) -> object:
    """A number of them, or as many as there are processors."""
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,3}", value) else value
    if number != "auto" and (type(number) is not int or not 1 <= number <= MOST_WORKERS):
        raise ValueError(f'must be "auto" or a whole number from 1 to {MOST_WORKERS}, not {value!r:.80}')
    return number


@dataclass(frozen=True, slots=True)
class Amount:
    """So many bytes, or a share of a file system."""

    bytes: int = 0
    percent: float = 0.0

    def of(self, total: int) -> int:
        """In bytes, on a file system of `total` bytes."""
        return int(total * self.percent / 100) if self.percent else self.bytes

    def __str__(self) -> str:
        return f"{self.percent:g}%" if self.percent else str(self.bytes)


def _amount(value: object) -> Amount:
    if isinstance(value, Amount):
        return value
    if isinstance(value, str) and value.strip().endswith("%"):
        share = value.strip().removesuffix("%")
        if re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", share) and 0 < float(share) <= 100:
            return Amount(percent=float(share))
        raise PydanticCustomError("byte_size", "not a share")
    return Amount(TypeAdapter(Size).validate_python(value))


Number = BeforeValidator(_not_a_switch)
Words = Annotated[tuple[str, ...], BeforeValidator(_listed)]
HostName = Annotated[str, AfterValidator(_host_name)]
Hosts = Annotated[tuple[HostName, ...], BeforeValidator(_listed)]
Seconds = Annotated[float, Number, Field(ge=0, allow_inf_nan=False)]
Span = Annotated[
    float,
    BeforeValidator(_for_ever),
    Field(ge=0),
    PlainSerializer(lambda value: "forever" if value == float("inf") else value, when_used="json"),
]
Timeout = Annotated[float, Number, Field(gt=0, allow_inf_nan=False)]
Attempts = Annotated[int, Number, Field(ge=1, le=100)]
Size = Annotated[ByteSize, Number]
Processes = Annotated[int | Literal["auto"], BeforeValidator(_processes)]
Room = Annotated[Amount, BeforeValidator(_amount), PlainSerializer(str)]
Folder = Annotated[Path, AfterValidator(_expanded)]
ReadableFile = Annotated[Folder, AfterValidator(_readable)]


# What is said instead of pydantic's words, by the beginning of its type of error; the value follows.
REASONS = {
    "byte_size": "must be a size, for instance 50GiB, 500MB or 0 (for the room on the disk also 80%)",
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
    """One validation error in words of the file, and the value, unless that may be a secret or is long."""
    kind = error["type"]
    words = next((words for start, words in REASONS.items() if kind.startswith(start)), None)
    if words is None:
        return error["msg"].removeprefix("Value error, ")
    context: dict[str, Any] = error.get("ctx", {})
    value = error["input"]
    shown = isinstance(value, str | int | float) and "password" not in error["loc"]
    return words.format(**context) + (f", not {value!r:.80}" if shown else "")
