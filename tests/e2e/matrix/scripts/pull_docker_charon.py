"""Pull an image by docker-charon into its archive, and unpack that: HOST REPOSITORY TAG FOLDER."""

import sys
from pathlib import Path
from zipfile import ZipFile

from docker_charon import make_payload

host, repository, tag, folder = sys.argv[1:]
payload = Path(folder) / "payload.zip"
make_payload(payload, [f"{repository}:{tag}"], registry=host, secure=False)
with ZipFile(payload) as archive:
    for name in archive.namelist():
        if name.startswith("blobs/"):
            (Path(folder) / name.rpartition(":")[2]).write_bytes(archive.read(name))
