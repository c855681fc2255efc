"""Pull an image by docker-registry-client-async: HOST REPOSITORY TAG FOLDER."""

import asyncio
import os
import sys
from pathlib import Path

os.environ["DRCA_DEFAULT_PROTOCOL"] = "http"

from docker_registry_client_async import DockerRegistryClientAsync, FormattedSHA256, ImageName


async def pull() -> None:
    host, repository, tag, folder = sys.argv[1:]
    async with DockerRegistryClientAsync() as client:
        image = ImageName(repository, endpoint=host, tag=tag)
        answer = await client.get_manifest(image)
        index = answer.manifest.get_json()
        amd64 = next(each for each in index["manifests"] if each["platform"]["architecture"] == "amd64")
        single = ImageName(repository, endpoint=host, digest=FormattedSHA256.parse(amd64["digest"]))
        manifest = (await client.get_manifest(single)).manifest.get_json()
        for blob in (manifest["config"], *manifest["layers"]):
            digest = FormattedSHA256.parse(blob["digest"])
            with (Path(folder) / blob["digest"].removeprefix("sha256:")).open("wb") as file:
                await client.get_blob_to_disk(image, digest, file, file_is_async=False)


asyncio.run(pull())
