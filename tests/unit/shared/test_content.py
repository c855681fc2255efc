"""Content is verified before its last bytes are given away."""

from collections.abc import AsyncIterator

import pytest

from mirror.oci.digest import Digest
from mirror.shared.content import verified
from mirror.shared.errors import TierError, TierFault


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def test_content_with_its_digest_comes_as_it_is() -> None:
    """The same pieces, in order."""
    content = verified(Digest.of(b"abc"), 3, lambda: pieces(b"a", b"b", b"c"))
    assert [each async for each in content.chunks()] == [b"a", b"b", b"c"]
    empty = verified(Digest.of(b""), 0, pieces)
    assert [each async for each in empty.chunks()] == []


@pytest.mark.parametrize("data", [(b"a", b"b", b"d"), (b"a", b"b"), (b"a", b"b", b"c", b"d"), (b"",)])
async def test_content_with_other_bytes_keeps_the_last_ones(data: tuple[bytes, ...]) -> None:
    """Wrong, short or long: it raises in place of the last piece."""
    content = verified(Digest.of(b"abc"), 3, lambda: pieces(*data))
    given: list[bytes] = []

    async def read() -> None:
        async for each in content.chunks():
            given.append(each)

    with pytest.raises(TierError) as caught:
        await read()
    assert caught.value.fault is TierFault.WRONG
    assert given == [each for each in data[:-1] if each]


async def test_content_of_another_size_is_wrong() -> None:
    """A size that is not that of the bytes counts as much as the digest."""
    content = verified(Digest.of(b"abc"), 4, lambda: pieces(b"abc"))
    with pytest.raises(TierError):
        [each async for each in content.chunks()]
