"""A site of the bench: an upstream, an object store, a coordinator and mirrors, each at a line of its own."""

import secrets
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mirror.oci.digest import Digest
from mirror.shared.keys import object_key
from tests.bench.content import Image
from tests.bench.content import Site as Content
from tests.bench.machine import CORES, on_core
from tests.bench.origin import Origin, fast_origin
from tests.bench.tier.network import PEERS_PORT, Network, Node, network
from tests.e2e.processes import Process
from tests.engines import ACCESS_KEY, BUCKET, PASSWORD, SECRET_KEY, Engine, client_of, redis_server, seaweedfs
from tests.engines import running as running_engine

CLIENTS_PORT = 5000

# The secret of all mirrors.
PEERS_SECRET = "a-secret-of-all-mirrors-of-the-bench"

CONFIG = """
[server]
listen = ["{address}:{port}"]
[cache]
dir = "{folder}/cache"
min_free = 0
[[upstream]]
name = "docker.io"
url = "{upstream}"
"""

SHARED = """
[shared]
url = "s3://{bucket}/{prefix}"
endpoint = "http://{store.host}:{store.port}"
access_key = "{access_key}"
secret_key = "{secret_key}"
coordinator = "redis://{coordinator.host}:{coordinator.port}/0"
coordinator_password = "{password}"
peers_listen = "{address}:{peers_port}"
peers_secret = "{peers_secret}"
"""

# The longest time for the object store to have what a mirror has fetched, in seconds.
WRITING = 120.0


class Mirror(Process):
    """A mirror in a node; it is ready when the tier is in use, if it has one."""

    def __init__(self, node: Node, folder: Path, config: str) -> None:
        self.node = node
        self.address = f"{node.address}:{CLIENTS_PORT}"
        self._folder = folder
        self._shared = "[shared]" in config
        file = folder / "mirror.toml"
        file.write_text(config)
        command: list[str | Path] = [sys.executable, "-m", "mirror", "serve", "--config", file]
        super().__init__(command, folder / "mirror.log", self._is_ready)

    def start(self) -> None:
        """Start inside the node."""
        with self.node.inside(), on_core(*CORES):
            super().start()

    def metric(self, line: str) -> float:
        """Return a metric by name and labels; 0 when it was never counted."""
        text = urllib.request.urlopen(f"http://{self.address}/metrics").read().decode()
        values = [each.rpartition(" ")[2] for each in text.splitlines() if each.startswith(f"{line} ")]
        return float(values[0]) if values else 0.0

    def _is_ready(self) -> bool:
        if self._shared and b"shared tier in use" not in self.log.read_bytes():
            return False
        url = f"http://{self.address}/readyz"
        with suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
        return False


@dataclass(frozen=True)
class Site:
    """Programs that run, and where; `prefix` is that of an empty tier."""

    folder: Path
    content: Content
    network: Network
    upstream: Node
    origin: Origin
    store: Engine
    coordinator: Engine
    store_node: Node
    coordinator_node: Node
    prefix: str = ""

    def empty(self) -> "Site":
        """Return the site with a tier that is empty."""
        return replace(self, prefix=secrets.token_hex(4))

    @contextmanager
    def mirrors(self, count: int, bits: int, *, shared: bool = True) -> Iterator[list[Mirror]]:
        """Run mirrors with empty caches, each at a new node with a line of this rate."""
        with ExitStack() as stack:
            found = []
            for _ in range(count):
                folder = self.new_folder()
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                node = stack.enter_context(self.network.node(bits))
                mirror = Mirror(node, folder, self._config(node, folder, shared))
                stack.callback(mirror.stop)
                found.append(mirror)
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(Mirror.start, found))
            yield found

    def new_folder(self) -> Path:
        folder = self.folder / secrets.token_hex(4)
        folder.mkdir()
        return folder

    def wait_stored(self, image: Image) -> None:
        """Wait until the object store has all blobs of an image, its manifest included."""
        digests = [image.digest, *(each.digest for each in (image.config, *image.layers))]
        client, end = client_of(self.store), time.monotonic() + WRITING
        for digest in digests:
            while not self._is_stored(client, digest):
                assert time.monotonic() < end, f"{digest} is not in the object store"
                time.sleep(0.1)
        client.close()

    def url(self, digest: str) -> str:
        """Return a URL by which the object store gives a blob."""
        client = client_of(self.store)
        key = f"{self.prefix}/{_key(digest)}"
        values = {"Bucket": BUCKET, "Key": key}
        return str(client.generate_presigned_url("get_object", Params=values, ExpiresIn=3600))

    def _is_stored(self, client: Any, digest: str) -> bool:
        found = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}/{_key(digest)}")
        return bool(found.get("Contents"))

    def _config(self, node: Node, folder: Path, shared: bool) -> str:
        values = {
            "address": node.address,
            "port": CLIENTS_PORT,
            "folder": folder,
            "upstream": self.origin.url,
        }
        config = CONFIG.format(**values)
        if shared:
            config += SHARED.format(
                bucket=BUCKET,
                prefix=self.prefix,
                store=self.store,
                coordinator=self.coordinator,
                access_key=ACCESS_KEY,
                secret_key=SECRET_KEY,
                password=PASSWORD,
                address=node.address,
                peers_port=PEERS_PORT,
                peers_secret=PEERS_SECRET,
            )
        return config


def _key(digest: str) -> str:
    return object_key(Digest.parse(digest))


@contextmanager
def site(folder: Path, content: Content) -> Iterator[Site]:
    """Start a site without mirrors; its lines have no limit at first. Make the content before."""
    with network() as switch, ExitStack() as stack:
        upstream, store_node, coordinator_node = (stack.enter_context(switch.node()) for _ in range(3))
        for name in ("store", "coordinator"):
            (folder / name).mkdir()
        store = seaweedfs(folder / "store", store_node.address, volumes=100)
        with store_node.inside():
            stack.enter_context(running_engine(store))
        coordinator = redis_server(folder / "coordinator", coordinator_node.address)
        with coordinator_node.inside():
            stack.enter_context(running_engine(coordinator))
        with upstream.inside():
            origin = stack.enter_context(fast_origin(content, folder / "origin", address=upstream.address))
        yield Site(
            folder, content, switch, upstream, origin, store, coordinator, store_node, coordinator_node
        )
