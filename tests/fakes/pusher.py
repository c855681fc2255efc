"""Client that pushes: whole images in a few calls, over a connection that it keeps."""

import json
from collections.abc import Iterable
from typing import Any

from mirror.oci.digest import Digest
from tests.wire import Reply, Wire

OCI = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def chunked(*chunks: bytes) -> bytes:
    """Body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in chunks if each) + b"0\r\n\r\n"


def descriptor(data: bytes, kind: str = LAYER, algorithm: str = "sha256") -> dict[str, Any]:
    return {"mediaType": kind, "digest": str(Digest.of(data, algorithm)), "size": len(data)}


def manifest_of(
    layers: Iterable[bytes], config: bytes = b"{}", algorithm: str = "sha256", **more: Any
) -> bytes:
    found = {
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": descriptor(config, CONFIG, algorithm),
        "layers": [descriptor(each, algorithm=algorithm) for each in layers],
        **more,
    }
    return json.dumps(found).encode()


class Pusher:
    """One connection. `headers` go with each request, the credentials for instance."""

    def __init__(self, wire: Wire, repository: str = "office/app", headers: Iterable[str] = ()) -> None:
        self.wire = wire
        self.base = f"/v2/{repository}"
        self.headers = list(headers)

    @classmethod
    async def open(cls, address: str, repository: str = "office/app", *headers: str) -> "Pusher":
        return cls(await Wire.open(address), repository, headers)

    async def __aenter__(self) -> "Pusher":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.wire.writer.close()

    async def ask(self, method: str, path: str, *headers: str, body: bytes | None = None) -> Reply:
        """Send one request; `path` is below the repository unless it begins with a slash."""
        lengths = [] if body is None else [f"Content-Length: {len(body)}"]
        target = path if path.startswith("/") else f"{self.base}/{path}"
        self.wire.send(method, target, [*self.headers, *lengths, *headers])
        self.wire.writer.write(body or b"")
        return await self.wire.reply(method)

    async def begin(self, query: str = "") -> Reply:
        return await self.ask("POST", f"blobs/uploads/{query}", body=b"")

    async def session(self) -> str:
        """Begin an upload; return its path."""
        begun = await self.begin()
        assert begun.status == 202, begun.body
        return begun.header("location")

    async def finish(self, location: str, digest: Digest | str, *headers: str, body: bytes = b"") -> Reply:
        return await self.ask("PUT", f"{location}{joined(location)}digest={digest}", *headers, body=body)

    async def blob(self, data: bytes, algorithm: str = "sha256") -> Reply:
        """Push a blob by POST and PUT."""
        pushed = await self.finish(await self.session(), Digest.of(data, algorithm), body=data)
        assert pushed.status == 201, pushed.body
        return pushed

    async def manifest(self, reference: str | Digest, data: bytes, kind: str = OCI) -> Reply:
        return await self.ask("PUT", f"manifests/{reference}", f"Content-Type: {kind}", body=data)

    async def image(self, tag: str, *layers: bytes) -> Digest:
        """Push an image of these layers; return its digest."""
        for each in (b"{}", *layers):
            await self.blob(each)
        data = manifest_of(layers)
        pushed = await self.manifest(tag, data)
        assert pushed.status == 201, pushed.body
        return Digest.of(data)


def joined(location: str) -> str:
    """Return the sign that joins a query to a path, which may have one already."""
    return "&" if "?" in location else "?"


def error(reply: Reply) -> tuple[int, str]:
    """Status and code of an error."""
    return reply.status, str(json.loads(reply.body)["errors"][0]["code"])
