"""Wrong answers to a range request, by name: what a fake's `range_way` answers to every range."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass

from tests.fakes.answer import Answer
from tests.fakes.faults import NO_FAULT, Fault, oci_error

OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class AskedRange:
    """A range of a blob: `stop` is exclusive, None for a range without an end."""

    data: bytes
    start: int
    stop: int | None

    @property
    def end(self) -> int:
        """Return where the range ends, clipped to the blob."""
        return len(self.data) if self.stop is None else min(self.stop, len(self.data))

    @property
    def part(self) -> bytes:
        return self.data[self.start : self.end]

    def head(self, start: int, stop: int, total: object) -> dict[str, str]:
        return {**OCTETS, "Content-Range": f"bytes {start}-{stop - 1}/{total}"}

    def right(self, **headers: str) -> Answer:
        """Return the right answer, with further headers."""
        return Answer(self.part, {**self.head(self.start, self.end, len(self.data)), **headers}, 206)


RangeAnswer = tuple[Answer, Fault]
RangeWay = Callable[[AskedRange], RangeAnswer]


def _status(status: int) -> RangeWay:
    answer = Answer(oci_error("UNSUPPORTED", "no ranges"), {"Content-Type": "application/json"}, status)
    return lambda asked: (answer, NO_FAULT)


def _go_containerregistry(asked: AskedRange) -> RangeAnswer:
    """Refuse a range without an end, and one that ends after the blob."""
    if asked.stop is None or asked.stop > len(asked.data):
        return _status(416)(asked)
    return asked.right(), NO_FAULT


def _part_with_200(asked: AskedRange) -> RangeAnswer:
    return Answer(asked.part, asked.head(asked.start, asked.end, len(asked.data))), NO_FAULT


def _part_with_200_and_no_content_range(asked: AskedRange) -> RangeAnswer:
    return Answer(asked.part, OCTETS), NO_FAULT


def _another_range(asked: AskedRange) -> RangeAnswer:
    stop = len(asked.part)
    return Answer(asked.data[:stop], asked.head(0, stop, len(asked.data)), 206), NO_FAULT


def _shifted_range(asked: AskedRange) -> RangeAnswer:
    start = max(asked.start - 1000, 0) or 1000
    return Answer(asked.data[start : asked.end], asked.head(start, asked.end, len(asked.data)), 206), NO_FAULT


def _wrong_total(asked: AskedRange) -> RangeAnswer:
    return Answer(asked.part, asked.head(asked.start, asked.end, len(asked.data) + 1), 206), NO_FAULT


def _part_as_total(asked: AskedRange) -> RangeAnswer:
    return Answer(asked.part, asked.head(0, len(asked.part), len(asked.part)), 206), NO_FAULT


def _multipart(asked: AskedRange) -> RangeAnswer:
    lines = asked.head(asked.start, asked.end, len(asked.data))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    body = f"--x\r\n{head}\r\n".encode() + asked.part + b"\r\n--x--\r\n"
    return Answer(body, {"Content-Type": "multipart/byteranges; boundary=x"}, 206), NO_FAULT


def _shorter(asked: AskedRange) -> RangeAnswer:
    """Send less than asked for, and say so."""
    stop = min(asked.end, asked.start + 1024 * 1024)
    return Answer(
        asked.data[asked.start : stop], asked.head(asked.start, stop, len(asked.data)), 206
    ), NO_FAULT


def _longer(asked: AskedRange) -> RangeAnswer:
    """Send more than the Content-Range says."""
    answer = Answer(asked.part + b"surplus" * 1000, asked.right().headers, 206)
    return answer, Fault(chunked=True)


def _gzip(asked: AskedRange) -> RangeAnswer:
    body = gzip.compress(asked.part, 1)
    return Answer(body, {**asked.head(0, len(body), len(body)), "Content-Encoding": "gzip"}, 206), NO_FAULT


def _wrong_bytes(asked: AskedRange) -> RangeAnswer:
    """Say that the range is sent, and send as much from the beginning."""
    return Answer(asked.data[-len(asked.part) :], asked.right().headers, 206), NO_FAULT


RANGE_WAYS: dict[str, RangeWay] = {
    **{str(status): _status(status) for status in (400, 403, 404, 405, 406, 416, 500, 501, 503)},
    "416 as go-containerregistry": _go_containerregistry,
    "200 whole": lambda asked: (Answer(asked.data, OCTETS), NO_FAULT),
    "200 whole, no length": lambda asked: (Answer(asked.data, OCTETS), Fault(chunked=True)),
    "200 with a part": _part_with_200,
    "200 with a part, unsaid": _part_with_200_and_no_content_range,
    "200 empty": lambda asked: (Answer(b"", OCTETS), NO_FAULT),
    "206 whole": lambda asked: (
        Answer(asked.data, asked.head(0, len(asked.data), len(asked.data)), 206),
        NO_FAULT,
    ),
    "206 another range": _another_range,
    "206 shifted": _shifted_range,
    "206 no Content-Range": lambda asked: (Answer(asked.part, OCTETS, 206), NO_FAULT),
    "206 nonsense": lambda asked: (Answer(asked.part, {**OCTETS, "Content-Range": "0-1"}, 206), NO_FAULT),
    "206 wrong total": _wrong_total,
    "206 part as total": _part_as_total,
    "206 multipart": _multipart,
    "206 no total": lambda asked: (
        Answer(asked.part, asked.head(asked.start, asked.end, "*"), 206),
        NO_FAULT,
    ),
    "206 shorter": _shorter,
    "206 longer": _longer,
    "206 gzip": _gzip,
    "206 labelled gzip": lambda asked: (asked.right(**{"Content-Encoding": "gzip"}), NO_FAULT),
    "206 other ETag": lambda asked: (asked.right(ETag=f'"{asked.start}"'), NO_FAULT),
    "cut": lambda asked: (asked.right(), Fault(cut_at=0)),
    "reset": lambda asked: (asked.right(), Fault(reset_at=0)),
    "closed": lambda asked: (asked.right(), Fault(raw=b" ")),
}

# Sources that lie: what they send is not what they say.
LYING_WAYS: dict[str, RangeWay] = {"206 wrong bytes": _wrong_bytes}
