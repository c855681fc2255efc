"""Platforms, as people name them."""

import pytest

from mirror.oci.platforms import own_platform, parse_platforms


def test_own_platform_has_the_names_of_images() -> None:
    assert own_platform("x86_64") == "linux/amd64"
    assert own_platform("armv7l") == "linux/arm/v7"
    assert own_platform("riscv64") == "linux/riscv64"


def test_platforms_are_this_machines_own_without_any() -> None:
    assert parse_platforms([]) == (own_platform(),)
    assert parse_platforms(["linux/arm64", "linux/amd64", "linux/arm64"]) == ("linux/arm64", "linux/amd64")
    assert parse_platforms(["linux/arm64", "all"]) == ()


@pytest.mark.parametrize("text", ["amd64", "", "Linux/amd64", "linux/amd64/v1/x"])
def test_platform_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a platform"):
        parse_platforms([text])
