"""Read an image as a lazy snapshotter does, all of it by ranges: HOST REPOSITORY TAG FOLDER.

The requests are those of stargz-snapshotter: a probe of two bytes, the footer, then several chunks with one
request, whose response is multipart/byteranges.
"""

import email
import json
import sys
import urllib.request
from pathlib import Path

LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

# Bytes of a footer of an eStargz layer, and of a chunk; chunks that one request asks for.
FOOTER, CHUNK, AT_ONCE = 51, 10_000, 8

host, repository, tag, folder = sys.argv[1:]
base = f"http://{host}/v2/{repository}"


def get(path: str, **headers: str) -> tuple[int, email.message.Message, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(f"{base}/{path}", headers=named)) as response:
        return response.status, response.headers, response.read()


def parts(headers: email.message.Message, body: bytes) -> list[tuple[int, bytes]]:
    """Return start and bytes of each range of a 206."""
    if headers.get_content_type() != "multipart/byteranges":
        return [(start_of(headers), body)]
    document = b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body
    found = email.message_from_bytes(document).get_payload()
    return [(start_of(part), part.get_payload(decode=True)) for part in found]


def start_of(headers: email.message.Message) -> int:
    return int(headers["Content-Range"].removeprefix("bytes ").partition("-")[0])


def read(digest: str, size: int) -> bytes:
    """Read a blob by ranges, the last chunks first."""
    status, headers, body = get(f"blobs/{digest}", Range="bytes=0-1")
    assert (status, headers["Content-Range"], len(body)) == (206, f"bytes 0-1/{size}", 2), headers
    begin = max(0, size - FOOTER)
    assert get(f"blobs/{digest}", Range=f"bytes={begin}-{size - 1}")[0] == 206
    data, starts = bytearray(size), list(range(0, size, CHUNK))
    # Every second chunk, so that no two ranges touch; then the others.
    for half in (starts[1::2], starts[::2]):
        for first in range(0, len(half), AT_ONCE):
            ranges = [f"{start}-{min(start + CHUNK, size) - 1}" for start in half[first : first + AT_ONCE]]
            status, headers, body = get(f"blobs/{digest}", Range=f"bytes={','.join(ranges)}")
            assert status == 206, status
            for start, part in parts(headers, body):
                data[start : start + len(part)] = part
    return bytes(data)


index = json.loads(get(f"manifests/{tag}", Accept=LIST)[2])
amd64 = next(each for each in index["manifests"] if each["platform"]["architecture"] == "amd64")
manifest = json.loads(get(f"manifests/{amd64['digest']}", Accept=MANIFEST)[2])
for blob in (manifest["config"], *manifest["layers"]):
    (Path(folder) / blob["digest"].removeprefix("sha256:")).write_bytes(read(blob["digest"], blob["size"]))
