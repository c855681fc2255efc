"""Trial of one parser: damaged inputs, the oracle's word about each, and the time that each takes."""

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

# Most processor time, in seconds, that one input may take; the longest right ones take some milliseconds.
LIMIT_SECONDS = 0.5

# Attempts to shorten an input that shows a fault; each may take LIMIT_SECONDS.
MOST_TRIES = 500

# Longest input, in bytes: more than a head may have.
LONGEST = 160 * 1024

# What a check returns for an input that the parser refuses as it documents.
REFUSED, ACCEPTED = False, True


@dataclass(frozen=True)
class Parser:
    """A parser. `check` gives it an input and returns ACCEPTED or REFUSED; it raises for a fault.

    `seeds`: right inputs and near ones. `words`: of the grammar.
    """

    name: str
    check: Callable[[bytes], bool]
    seeds: Sequence[bytes]
    words: Sequence[bytes]


@dataclass(frozen=True)
class Failure:
    number: int
    data: bytes
    text: str


class TookTooLong(BaseException):
    """An input that the parser did not finish in time."""


@dataclass
class Trial:
    """Inputs to one parser, by seed and number, and what came of them."""

    parser: Parser
    seed: int
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    def input(self, number: int) -> bytes:
        """Return the input of this number, always the same for the same seed."""
        return damaged(random.Random(self.seed * 2**64 + number), self.parser)

    def run(self, number: int) -> None:
        data = self.input(number)
        began = time.process_time()
        fault = self.fault(data)
        self.slowest = max(self.slowest, time.process_time() - began)
        if fault is not None:
            self.failures.append(Failure(number, data, fault))

    def fault(self, data: bytes) -> str | None:
        """Return what is wrong with the parser, by this input."""
        try:
            with limited(LIMIT_SECONDS):
                accepted = self.parser.check(data)
        except TookTooLong:
            return f"took more than {LIMIT_SECONDS} s"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if accepted:
            self.accepted += 1
        else:
            self.refused += 1
        return None

    def minimised(self, failure: Failure) -> bytes:
        """Return a shorter input with a fault, as short as MOST_TRIES find one."""
        data, size, tries = failure.data, max(1, len(failure.data) // 2), 0
        while size and tries < MOST_TRIES:
            for start in range(0, len(data), size):
                shorter, tries = data[:start] + data[start + size :], tries + 1
                if self.fault(shorter) is not None:
                    data = shorter
                    break
            else:
                size //= 2
        return data


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TookTooLong after this much processor time."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def damaged(chance: random.Random, parser: Parser) -> bytes:
    """Return a seed of the parser, damaged in some places; sometimes whole, sometimes noise."""
    data = chance.choice(parser.seeds)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 5, 9))):
        data = chance.choice(DAMAGES)(chance, data, parser)
    return data[:LONGEST]


def _byte(chance: random.Random, data: bytes, parser: Parser) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + bytes([chance.randrange(256)]) + data[place + chance.randrange(2) :]


def _odd(chance: random.Random, data: bytes, parser: Parser) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.choice(ODD) + data[place + chance.randrange(2) :]


def _word(chance: random.Random, data: bytes, parser: Parser) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.choice(parser.words) + data[place + chance.randrange(4) :]


def _cut(chance: random.Random, data: bytes, parser: Parser) -> bytes:
    start = chance.randrange(len(data) + 1)
    return data[:start] + data[start + chance.randrange(12) :]


def _end(chance: random.Random, data: bytes, parser: Parser) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _repeat(chance: random.Random, data: bytes, parser: Parser) -> bytes:
    start = chance.randrange(len(data) + 1)
    part = data[start : start + chance.randrange(1, 20)]
    times = chance.choice((2, 2, 2, 3, 3, 10, 40)) if chance.random() < 0.99 else 4_000
    return data[:start] + part * times + data[start + len(part) :]


def _splice(chance: random.Random, data: bytes, parser: Parser) -> bytes:
    other = chance.choice(parser.seeds)
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


def _number(chance: random.Random, data: bytes, parser: Parser) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.choice(NUMBERS) + data[place:]


DAMAGES = (_byte, _odd, _odd, _word, _word, _cut, _end, _repeat, _splice, _number)

ODD = [
    *(bytes([each]) for each in b"\x00\t\n\r \"#%'()*+,-./:;<=>?@[\\]_`{|}~\x7f"),
    *(b"\r\n", b"%00", b"%2F", b"%252F", b"\xc3\xa9", b"\xff", b"\xe2\x80\xae", b'\\"', b"==", b"..", b"//"),
]
NUMBERS = [
    *(b"0", b"-1", b"1", b"255", b"256", b"65535", b"65536", b"4294967296", b"9223372036854775807"),
    *(b"9223372036854775808", b"00", b"1e9", b"0x10", b"9" * 30, b"9" * 5_000, b"\xd9\xa3"),
]
