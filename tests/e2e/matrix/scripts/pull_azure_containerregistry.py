"""Pull an image by azure-containerregistry: HOST REPOSITORY TAG FOLDER."""

import sys
from pathlib import Path

from azure.containerregistry import ContainerRegistryClient

host, repository, tag, folder = sys.argv[1:]
plain = {"enforce_https": False}
with ContainerRegistryClient(f"http://{host}") as client:
    manifest = client.get_manifest(repository, tag, **plain).manifest
    if "manifests" in manifest:
        amd64 = next(each for each in manifest["manifests"] if each["platform"]["architecture"] == "amd64")
        manifest = client.get_manifest(repository, amd64["digest"], **plain).manifest
    for blob in (manifest["config"], *manifest["layers"]):
        with (Path(folder) / blob["digest"].removeprefix("sha256:")).open("wb") as file:
            for chunk in client.download_blob(repository, blob["digest"], **plain):
                file.write(chunk)
