"""Pull an image by python-dxf: HOST REPOSITORY TAG FOLDER."""

import json
import sys
from pathlib import Path

from dxf import DXF

host, repository, tag, folder = sys.argv[1:]
with DXF(host, repository, insecure=True) as client:
    manifest = json.loads(client.get_manifest(tag, platform="linux/amd64"))
    for blob in (manifest["config"], *manifest["layers"]):
        data = b"".join(client.pull_blob(blob["digest"]))
        (Path(folder) / blob["digest"].removeprefix("sha256:")).write_bytes(data)
