"""Pull an image by regshape, whose commands fetch one thing each: HOST REPOSITORY TAG FOLDER."""

import json
import sys
from pathlib import Path

from regshape.cli.main import regshape


def call(*arguments: str) -> None:
    regshape(["--insecure", *arguments], standalone_mode=False)


def fetch_manifest(reference: str, to: Path) -> dict:
    call("manifest", "get", "--raw", "-i", reference, "-o", str(to))
    return json.loads(to.read_bytes())


host, repository, tag, folder = sys.argv[1:]
name, scratch = f"{host}/{repository}", Path(folder) / "scratch"
manifest = fetch_manifest(f"{name}:{tag}", scratch)
amd64 = next(each for each in manifest["manifests"] if each["platform"]["architecture"] == "amd64")
manifest = fetch_manifest(f"{name}@{amd64['digest']}", scratch)
for blob in (manifest["config"], *manifest["layers"]):
    target = Path(folder) / blob["digest"].removeprefix("sha256:")
    call("blob", "get", "-r", name, "-d", blob["digest"], "-o", str(target))
