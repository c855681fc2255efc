"""Look an image up by registry-api-v2-client: HOST REPOSITORY TAG FOLDER.

The client has no call for a blob: the manifest says which there are, and they are fetched without it.
"""

import asyncio
import sys
import urllib.request
from pathlib import Path

from registry_api_v2_client.registry import get_manifest

host, repository, tag, folder = sys.argv[1:]
manifest = asyncio.run(get_manifest(f"http://{host}", repository, tag))
for blob in (manifest["config"], *manifest["layers"]):
    url = f"http://{host}/v2/{repository}/blobs/{blob['digest']}"
    with urllib.request.urlopen(url) as response:
        (Path(folder) / blob["digest"].removeprefix("sha256:")).write_bytes(response.read())
