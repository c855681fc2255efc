"""The grammar of media types."""

import pytest

from mirror.oci.manifest import ACCEPT
from mirror.oci.media_type import OCTETS, is_media_type


@pytest.mark.parametrize("text", [*ACCEPT, OCTETS, "a/b", "application/vnd.example.x+json", "x-a/y.z_1"])
def test_media_types(text: str) -> None:
    """Types as registries send them."""
    assert is_media_type(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a/",
        "/b",
        "a/b/c",
        "a/b;c=d",
        "a b/c",
        "a/b\n",
        "a/\x1b[m",
        "a/b\udcff",
        "ä/b",
        f"a/{'b' * 128}",
    ],
)
def test_text_that_is_no_media_type(text: str) -> None:
    """Text that could end a header, or cannot be sent as one, is refused."""
    assert not is_media_type(text)
