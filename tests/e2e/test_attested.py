"""Docker 29 pulls an image with an attestation and a signature of it, and again without the upstream."""

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.e2e.clients import Docker, docker
from tests.e2e.matrix.tools import tool
from tests.e2e.tolerance.images import X, add_image
from tests.fakes.content import CONFIG_TYPE, descriptor
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.leftovers import short_folder
from tests.pinned import pinned
from tests.running import mirror_of
from tests.wire import get

INSTALLED = all(pinned()[name].installed for name in ("containerd", "dockerd"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("docker", root=True),
    pytest.mark.skipif(not INSTALLED, reason="dockerd is not installed"),
    pytest.mark.timeout(120),
]

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = b'{"_type": "https://in-toto.io/Statement/v0.1", "subject": [], "predicate": {}}'


@pytest.fixture
def client() -> Iterator[Docker]:
    """A dockerd with the containerd image store."""
    path = f"{pinned()['containerd'].folder}:{os.environ['PATH']}"
    features = {"containerd-snapshotter": True}
    insecure: dict[str, Any] = {"insecure-registries": ["127.0.0.0/8"]}
    values: dict[str, Any] = {"env": {"PATH": path}, "daemon": tool("dockerd"), "storage": "native"}
    with (
        short_folder() as folder,
        docker(folder / "d", [], features=features, **values, **insecure) as running,
    ):
        yield running


def manifest_of(fake: FakeRegistry, kind: str, layer: bytes, **more: object) -> bytes:
    """Add a manifest with one layer of this type."""
    fake.add_blob(X, b"{}")
    fake.add_blob(X, layer)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG_TYPE, b"{}"),
        "layers": [
            {
                **descriptor(kind, layer),
                "annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"},
            }
        ],
        **more,
    }
    data = json.dumps(document).encode()
    fake.add_manifest(X, data)
    return data


def add_attested(fake: FakeRegistry) -> tuple[Digest, Digest]:
    """Add an attested image under the tag `attested`; return the attestation and the signature of it."""
    image = add_image(fake, "attested")
    attestation = manifest_of(fake, IN_TOTO, STATEMENT)
    signature = manifest_of(
        fake, BUNDLE, b'{"bundle": 1}', artifactType=BUNDLE, subject=descriptor(OCI_MANIFEST, attestation)
    )
    entries = [
        {
            **descriptor(OCI_MANIFEST, image.manifest_data),
            "platform": {"os": "linux", "architecture": "amd64"},
        },
        {
            **descriptor(OCI_MANIFEST, attestation),
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {
                "vnd.docker.reference.digest": str(image.manifest),
                "vnd.docker.reference.type": "attestation-manifest",
            },
        },
    ]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    fake.add_manifest(X, json.dumps(index).encode(), OCI_INDEX, "attested")
    return Digest.of(attestation), Digest.of(signature)


@pytest.mark.parametrize("api", [True, False], ids=["referrers API", "none"])
async def test_attested_image_is_pulled_again_without_the_upstream(
    fake: FakeRegistry, tmp_path: Any, client: Docker, *, api: bool
) -> None:
    """Image, attestation, list and signature are here: the second pull needs no answer of the upstream."""
    attestation, signature = add_attested(fake)
    fake.referrers_api = api
    async with mirror_of(fake, tmp_path / "cache", fill={"prefetch": "layer"}) as mirror:
        reference = f"{mirror.address}/docker.io/{X}:attested"
        assert await asyncio.to_thread(client.try_pull, reference) == ""
        assert fake.requests("GET", f"/referrers/{attestation}") == 1
        await asyncio.to_thread(client.forget, reference)
        fake.fault(Fault(raw=b""), times=10_000)
        assert await asyncio.to_thread(client.try_pull, reference) == ""
        listed = await get(mirror.address, f"/v2/docker.io/{X}/referrers/{attestation}")
        found = [each["digest"] for each in json.loads(listed.body)["manifests"]]
        assert (found, "warning" in listed.headers) == ([str(signature)] if api else [], False)
        if api:
            assert (await get(mirror.address, f"/v2/docker.io/{X}/manifests/{signature}")).status == 200
