"""Real clients, and a registry that misbehaves: what they pull directly, they pull through the mirror."""

import asyncio
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.manifest import OCI_MANIFEST
from mirror.transfer.plan import PlanLimits
from tests.contract.test_labels import CLAIMS, LABELS
from tests.e2e.clients import POLICY, complaint
from tests.e2e.images import tar_of
from tests.fakes.content import CONFIG_TYPE, LAYER_TYPE, descriptor
from tests.fakes.faults import NO_FAULT, Fault
from tests.fakes.ranges import RANGE_WAYS
from tests.fakes.registry import FakeRegistry
from tests.programs import program
from tests.running import mirror_of

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.usefixtures("no_pauses"),
]

X = "library/x"
LAYER = gzip.compress(tar_of({"noise": bytes(range(256)) * 20_000}), 0, mtime=0)
CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
).encode()


def add_image(fake: FakeRegistry, size: object = len(LAYER)) -> None:
    """Add an image whose manifest says `size` of its layer."""
    layer = {**descriptor(LAYER_TYPE, LAYER), "size": size}
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG_TYPE, CONFIG),
        "layers": [layer],
    }
    for data in (CONFIG, LAYER):
        fake.add_blob(X, data)
    fake.add_manifest(X, json.dumps(document).encode(), tag="t")


def packed(data: bytes, encoding: str) -> Fault:
    return Fault(data=gzip.compress(data, 1), headers={"Content-Encoding": encoding})


LAYER_FAULTS = {
    **{name: Fault(headers=headers) for name, headers in LABELS.items()},
    "no length": Fault(chunked=True),
    "no length, no HEAD": Fault(chunked=True, no_ranges=True),
    "surplus": Fault(data=LAYER + b"surplus", chunked=True),
}
MANIFEST_FAULTS = {name: Fault(headers=headers) for name, headers in LABELS.items()}


async def run(name: str, *arguments: str | Path) -> str:
    """Return the complaint of a client, "" for none."""
    return await asyncio.to_thread(lambda: complaint([program(name), *arguments]))


async def copy(address: str, to: Path) -> str:
    """Copy by skopeo, which compares each blob with its digest."""
    name = f"docker://{address}/{X}:t"
    flags: Sequence[str] = ("--insecure-policy", "copy", "--src-tls-verify=false")
    return await run("skopeo", *flags, name, f"dir:{to}")


async def compare(fake: FakeRegistry, folder: Path) -> str:
    """Copy directly and through the mirror; return the direct complaint.

    A direct success is a success through the mirror, also the second time, from the cache.
    """
    direct = await copy(fake.url.removeprefix("http://"), folder / "direct")
    fill = {"parallel": 4, "parallel_above": 1024 * 1024}
    async with mirror_of(fake, folder / "cache", PlanLimits(first_span=1024 * 1024), fill=fill) as mirror:
        for name in ("one", "two"):
            complaint = await copy(mirror.address, folder / name)
            assert direct or not complaint, complaint
    return direct


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("name", LAYER_FAULTS)
async def test_skopeo_with_a_label_on_a_layer(fake: FakeRegistry, tmp_path: Path, name: str) -> None:
    add_image(fake)
    fake.fault(LAYER_FAULTS[name], str(descriptor(LAYER_TYPE, LAYER)["digest"]), "GET", times=99)
    direct = await compare(fake, tmp_path)
    if name not in ("Content-Encoding gzip", "surplus"):  # which skopeo inflates, and reads to its end
        assert direct == ""


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("name", MANIFEST_FAULTS)
async def test_skopeo_with_a_label_on_a_manifest(fake: FakeRegistry, tmp_path: Path, name: str) -> None:
    add_image(fake)
    fake.fault(MANIFEST_FAULTS[name], "manifests", times=99)
    await compare(fake, tmp_path)


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("length", [NO_FAULT, Fault(chunked=True)], ids=["length", "no length"])
@pytest.mark.parametrize("claimed", CLAIMS)
async def test_skopeo_with_a_wrong_size_in_the_manifest(
    fake: FakeRegistry, tmp_path: Path, claimed: str, length: Fault
) -> None:
    add_image(fake, CLAIMS[claimed](len(LAYER)))
    fake.fault(length, str(descriptor(LAYER_TYPE, LAYER)["digest"]), "GET", times=99)
    await compare(fake, tmp_path)


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
async def test_skopeo_with_content_that_is_really_compressed(
    fake: FakeRegistry, tmp_path: Path, what: str
) -> None:
    add_image(fake)
    data = {"manifest": b"", "config": CONFIG, "layer": LAYER}[what]
    if what == "manifest":
        found = fake.repository(X).manifest("t")
        assert found is not None
        fake.fault(packed(found[1].data, "gzip"), "manifests", "GET", times=99)
    else:
        fake.fault(packed(data, "gzip"), str(descriptor("", data)["digest"]), "GET", times=99)
    assert await compare(fake, tmp_path) == ""


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("way", RANGE_WAYS)
async def test_skopeo_with_a_source_that_misanswers_ranges(
    fake: FakeRegistry, tmp_path: Path, way: str
) -> None:
    """skopeo asks for no range unless a download breaks."""
    add_image(fake)
    fake.range_way = RANGE_WAYS[way]
    assert await compare(fake, tmp_path) == ""


@pytest.mark.needs("podman", root=True)
@pytest.mark.parametrize("claimed", ["one more", "one less", "nothing"])
async def test_podman_with_a_wrong_size_in_the_manifest(
    fake: FakeRegistry, tmp_path: Path, short: Path, claimed: str
) -> None:
    """podman pulls directly by --tls-verify=false, and through the mirror by its own address."""
    config = json.loads(CONFIG)
    config["rootfs"]["diff_ids"] = [str(descriptor("", gzip.decompress(LAYER))["digest"])]
    layer = {**descriptor(LAYER_TYPE, LAYER), "size": CLAIMS[claimed](len(LAYER))}
    data = json.dumps(config).encode()
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(CONFIG_TYPE, data)}
    fake.add_blob(X, data)
    fake.add_blob(X, LAYER)
    fake.add_manifest(X, json.dumps({**document, "layers": [layer]}).encode(), tag="t")
    policy = short / "policy.json"
    await asyncio.to_thread(policy.write_text, POLICY)

    async def pull(address: str, store: str) -> str:
        stores = ("--root", short / store, "--runroot", short / f"{store}r")
        drivers = ("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs")
        flags = ("pull", "--tls-verify=false", "--signature-policy", policy)
        return await run("podman", *stores, *drivers, *flags, f"{address}/{X}:t")

    direct = await pull(fake.url.removeprefix("http://"), "d")
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        through = await pull(mirror.address, "m")
    assert direct or not through, through
