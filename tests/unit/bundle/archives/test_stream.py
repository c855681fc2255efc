"""Streams to read archives from."""

import bz2
import gzip
import io
import lzma
import os
import threading

import pytest
import zstandard

from mirror.bundle.archives.limits import Limits
from mirror.bundle.archives.stream import open_stream
from mirror.bundle.errors import BundleError, Damaged, Unsupported
from tests.fakes.bundles import random_bytes

DATA = random_bytes(300_000, 1)
LIMITS = Limits()
PACKERS = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}


@pytest.mark.parametrize("pack", PACKERS.values(), ids=list(PACKERS))
def test_stream_is_decompressed(pack: type[bytes]) -> None:
    """The content decides, not the name."""
    stream = open_stream(io.BytesIO(pack(DATA)), LIMITS)
    assert stream.read(1000) == DATA[:1000]
    stream.skip(100_000)
    assert stream.at == 101_000
    assert stream.read_up_to(10**6) == DATA[101_000:]


def test_stream_of_several_frames_is_read_to_its_end() -> None:
    """pigz and pzstd write several."""
    for pack in (gzip.compress, zstandard.compress):
        stream = open_stream(io.BytesIO(pack(DATA) + pack(b"more")), LIMITS)
        assert stream.read_up_to(10**6) == DATA + b"more"


@pytest.mark.parametrize("pack", PACKERS.values(), ids=list(PACKERS))
def test_stream_comes_through_a_pipe(pack: type[bytes]) -> None:
    """A pipe cannot seek."""
    reading, writing = os.pipe()

    def send() -> None:
        with open(writing, "wb") as file:
            file.write(pack(DATA))

    sender = threading.Thread(target=send)
    sender.start()
    with open(reading, "rb", buffering=0) as file:
        stream = open_stream(file, LIMITS)
        stream.skip(200_000)
        assert stream.read(100_000) == DATA[200_000:]
    sender.join()


@pytest.mark.parametrize("pack", PACKERS.values(), ids=list(PACKERS))
@pytest.mark.parametrize("part", [0.1, 0.9])
def test_stream_that_is_cut_short_is_damaged(pack: type[bytes], part: float) -> None:
    """Reading and skipping both find the end."""
    data = pack(DATA)
    for call in ("read", "skip"):
        stream = open_stream(io.BytesIO(data[: int(len(data) * part)]), LIMITS)
        with pytest.raises(Damaged):
            getattr(stream, call)(300_000)


@pytest.mark.parametrize(
    "pack", [gzip.compress, lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data)]
)
def test_stream_with_a_changed_byte_is_damaged(pack: type[bytes]) -> None:
    """Both have a checksum at the end."""
    data = bytearray(pack(DATA))
    data[len(data) // 2] ^= 1
    with pytest.raises(Damaged):
        open_stream(io.BytesIO(bytes(data)), LIMITS).read_up_to(10**6)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_stream_that_is_a_bomb_is_refused(pack: type[bytes]) -> None:
    """A hundred megabytes of zeros come from few bytes; a file that is twice as large does not trouble."""
    limits = Limits(free=10_000_000, ratio=50)
    stream = open_stream(io.BytesIO(pack(bytes(100_000_000))), limits)
    with pytest.raises(BundleError, match="decompress it first"):
        stream.skip(100_000_000)
    assert stream.at < 15_000_000
    open_stream(io.BytesIO(pack(DATA * 10)), limits).skip(3_000_000)


@pytest.mark.parametrize(("pack", "name"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_stream_in_another_compression_is_named(pack: type[bytes], name: str) -> None:
    """The operator can decompress it."""
    with pytest.raises(Unsupported, match=name):
        open_stream(io.BytesIO(pack(DATA)), LIMITS)
