"""Pull an image by crpy: HOST REPOSITORY TAG FOLDER."""

import asyncio
import sys
from pathlib import Path

from crpy.registry import RegistryInfo


async def pull() -> None:
    host, repository, tag, folder = sys.argv[1:]
    image = RegistryInfo.from_url(f"http://{host}/{repository}:{tag}", insecure=True)
    manifest = await image.get_default_manifest("linux/amd64")
    config = await image.get_config("linux/amd64")
    (Path(folder) / manifest["config"]["digest"].removeprefix("sha256:")).write_bytes(config.data)
    for layer in await image.get_layers("linux/amd64"):
        data = await image.pull_layer(layer, use_cache=False)
        (Path(folder) / layer.removeprefix("sha256:")).write_bytes(data)


asyncio.run(pull())
