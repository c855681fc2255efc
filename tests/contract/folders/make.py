"""Maker of a small cache folder, with the code of an older version: an image that was pulled, a pin, a token.

In a checkout of that version, with its packages, and to a folder that does not exist yet:

    PYTHONPATH=. python -P .../tests/contract/folders/make.py FOLDER
    tar -C FOLDER -cJf NAME.tar.xz --owner=0 --group=0 --mtime=2026-01-01 .
"""

import asyncio
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.fakes.registry import FakeRegistry
from tests.running import mirror_of

TYPE = "application/vnd.oci.image.manifest.v1+json"
LAYERS = [b"layer of the old version", bytes(300_000)]


def get(url: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": TYPE})) as answer:
        return bytes(answer.read())


async def pull(folder: Path) -> None:
    """Pull an image through the mirror of this checkout."""
    async with FakeRegistry() as hub:
        image = hub.add_image("library/alpine", "3.20", LAYERS)
        async with mirror_of(hub, folder) as mirror:
            base = f"http://{mirror.address}/v2/library/alpine"
            await asyncio.to_thread(get, f"{base}/manifests/3.20")
            for digest in (image.config, *image.layers):
                await asyncio.to_thread(get, f"{base}/blobs/{digest}")
                await mirror.landed(digest)


def main() -> None:
    """Make the folder; versions without pins or tokens leave those out."""
    folder = Path(sys.argv[1])
    asyncio.run(pull(folder))
    for words in (["pin", "library/alpine:3.20"], ["token", "create", "ci"]):
        command = [sys.executable, "-m", "mirror", *words, "--config", "", "--cache-dir", str(folder)]
        subprocess.run(command, check=False)


if __name__ == "__main__":
    main()
