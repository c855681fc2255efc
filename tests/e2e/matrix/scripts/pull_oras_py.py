"""Pull an image by oras-py: HOST REPOSITORY TAG FOLDER."""

import sys
from pathlib import Path

import oras.client
import oras.container

host, repository, tag, folder = sys.argv[1:]
client = oras.client.OrasClient(hostname=host, insecure=True)
docker = "application/vnd.docker.distribution.manifest"
index = client.get_manifest(f"{host}/{repository}:{tag}", [f"{docker}.list.v2+json"])
amd64 = next(each for each in index["manifests"] if each["platform"]["architecture"] == "amd64")
manifest = client.get_manifest(f"{host}/{repository}@{amd64['digest']}", [f"{docker}.v2+json"])
container = oras.container.Container(f"{host}/{repository}")
for blob in (manifest["config"], *manifest["layers"]):
    target = Path(folder) / blob["digest"].removeprefix("sha256:")
    client.download_blob(container, blob["digest"], str(target))
