"""Lists of what a receiver has."""

import gzip
import hashlib
import io
import random
import time

import pytest

from mirror.bundle.errors import BundleError, Damaged, Unsupported
from mirror.bundle.have import HaveList, read_have
from mirror.oci.digest import Digest


def digests(count: int, seed: int = 1) -> list[Digest]:
    source = random.Random(seed)
    return [Digest("sha256", source.randbytes(32).hex()) for _ in range(count)]


def text(found: HaveList) -> bytes:
    return b"".join(found.lines())


def test_list_has_the_digests_and_no_others() -> None:
    """The order does not matter, and each is there once."""
    found, others = digests(1000), digests(1000, 2)
    have = read_have(io.BytesIO(text(HaveList.of(reversed(found + found)))))
    assert len(have) == 1000
    assert all(each in have for each in found)
    assert not any(each in have for each in others)
    assert text(have) == text(HaveList.of(found))


def test_list_has_sha512_too() -> None:
    """The algorithm does not matter."""
    digest = Digest("sha512", hashlib.sha512(b"x").hexdigest())
    assert digest in HaveList.of([digest])


def test_empty_list_is_one() -> None:
    """A new receiver has nothing."""
    have = read_have(io.BytesIO(text(HaveList.of([]))))
    assert (len(have), Digest.of(b"") in have) == (0, False)


def test_list_of_100_000_blobs_is_smaller_than_3_mib() -> None:
    """The text is ASCII, in lines that mail does not break."""
    lines = list(HaveList.of(digests(100_000)).lines())
    assert sum(map(len, lines)) < 3 * 1024 * 1024
    assert max(map(len, lines)) <= 77
    assert b"".join(lines).isascii()


@pytest.mark.slow
def test_list_of_a_million_blobs_takes_seconds() -> None:
    """Writing and reading again; processor time, because the machine may have other work."""
    found = [
        Digest("sha256", f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}" * 4) for number in range(1_000_000)
    ]
    start = time.process_time()
    have = read_have(io.BytesIO(text(HaveList.of(found))))
    assert len(have) == 1_000_000
    assert time.process_time() - start < 20


def test_list_in_gzip_is_read() -> None:
    """Some mail programs compress."""
    assert len(read_have(io.BytesIO(gzip.compress(text(HaveList.of(digests(3))))))) == 3


def test_list_with_other_line_ends_is_read() -> None:
    """Windows and mail make CRLF of them."""
    assert len(read_have(io.BytesIO(text(HaveList.of(digests(30))).replace(b"\n", b"\r\n")))) == 30


@pytest.mark.parametrize("place", range(60, 200, 20))
def test_list_with_one_changed_byte_is_refused(place: int) -> None:
    """A wrong list would leave out blobs that the receiver lacks."""
    data = bytearray(text(HaveList.of(digests(10))))
    data[place] = ord("A") if data[place] != ord("A") else ord("B")
    with pytest.raises(Damaged):
        read_have(io.BytesIO(bytes(data)))


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_list_that_is_cut_short_is_refused(part: float) -> None:
    """Plain and in gzip."""
    data = text(HaveList.of(digests(100)))
    packed = gzip.compress(data)
    for each in (data, packed):
        with pytest.raises(Damaged):
            read_have(io.BytesIO(each[: int(len(each) * part)]))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", BundleError),
        (b"sha256:abc\n", BundleError),
        (b"registry-mirror have 2\n", Unsupported),
        (b"registry-mirror have 1\ndigests -5\n", Damaged),
        (b"registry-mirror have 1\ndigests 99999999999\n", Damaged),
        (b"registry-mirror have 1\ndigests 1\nsha256\n", Damaged),
        (b"registry-mirror have 1\ndigests 1\nsha256 \n", Damaged),
    ],
)
def test_file_that_is_no_list_is_refused(data: bytes, kind: type[BundleError]) -> None:
    """The message says what the file is not."""
    with pytest.raises(kind):
        read_have(io.BytesIO(data))


def test_list_of_endless_lines_ends() -> None:
    """No more is read than the list says that there is."""

    def endless() -> bytes:
        return b"registry-mirror have 1\ndigests 1\n" + b"QUJD" * 10_000_000

    with pytest.raises(Damaged):
        read_have(io.BytesIO(gzip.compress(endless())))
