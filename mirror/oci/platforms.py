"""Platforms of images, as people name them: `linux/amd64`, `all`."""

import platform
from collections.abc import Sequence

from mirror.oci.image_pattern import PLATFORM

# Every platform, as people write it.
ALL = "all"

# Architectures by the names that kernels give them, as platforms of images have them.
ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i386": "386",
    "i686": "386",
    "loongarch64": "loong64",
}


def own_platform(machine: str | None = None) -> str:
    """Return the platform of this machine's images: `linux/amd64`. `machine`: as of `uname -m`."""
    name = platform.machine() if machine is None else machine
    return f"linux/{ARCHITECTURES.get(name, name)}"


def parse_platforms(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the wanted platforms; none for all of them, this machine's own without `texts`.

    Raises ValueError with a message for their author.
    """
    if not texts:
        return (own_platform(),)
    for each in texts:
        if each != ALL and PLATFORM.fullmatch(each) is None:
            raise ValueError(f"{each!r} is not a platform, for instance linux/amd64 or linux/arm/v7, or all")
    return () if ALL in texts else tuple(dict.fromkeys(texts))
