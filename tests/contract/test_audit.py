"""The audit log over a whole mirror: a line for each refusal and each pull, however it was answered."""

import asyncio
import json
from pathlib import Path
from typing import Any

from mirror.oci.digest import Digest
from tests.contract.hosting import hosting
from tests.fakes.pusher import Pusher
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, configured, serving
from tests.wire import Wire

OFFICE, STRANGER = "127.0.0.1", "127.0.0.2"


async def audited(folder: Path, *, pulls: bool) -> list[dict[str, Any]]:
    """Pull as one who may and one who may not, several times each; return the lines of the audit log."""
    path = folder / "audit.log"
    async with FakeRegistry() as hub:
        image = hub.add_image("org/app", "1", [bytes(LARGE)])
        config = configured(
            folder / "cache",
            {"hub.test": hub.url},
            rules=[
                {"name": "office", "effect": "allow", "networks": [OFFICE]},
                {"name": "nobody else", "effect": "deny"},
            ],
            audit={"file": str(path), "pulls": pulls},
        )
        async with serving(config) as mirror:
            for client in (OFFICE, STRANGER):
                async with await Wire.open(mirror.address, client=client) as wire:
                    for _ in range(4):
                        wire.send("GET", "/v2/hub.test/org/app/manifests/1")
                        await wire.reply()
                    wire.send("GET", f"/v2/hub.test/org/app/blobs/{image.layers[0]}")
                    await wire.reply()
    text = await asyncio.to_thread(path.read_text)
    return [json.loads(line) for line in text.splitlines()]


async def test_audit_has_every_refusal_and_who_it_was(tmp_path: Path) -> None:
    """Refusals from memory too; each request has an id of its own."""
    lines = await audited(tmp_path, pulls=False)
    assert [(each["event"], each["client"], each["status"]) for each in lines] == [
        ("denied", STRANGER, 403)
    ] * 5
    assert {each["rule"] for each in lines} == {"rule 2 (nobody else)"}
    assert len({each["id"] for each in lines}) == 5


async def test_audit_has_every_pull_on_request(tmp_path: Path) -> None:
    """Misses, hits from memory, and blobs by sendfile: with what was sent, and by which rule."""
    lines = [each for each in await audited(tmp_path, pulls=True) if each["event"] == "pulled"]
    assert [each["client"] for each in lines] == [OFFICE] * 5
    assert sorted(each["reference"] for each in lines)[:4] == ["1"] * 4
    assert {each["outcome"] for each in lines} == {"miss", "hit"}
    assert {each["rule"] for each in lines} == {"rule 1 (office)"}
    assert sorted(each["bytes"] for each in lines)[-1] == LARGE
    assert all(each["digest"].startswith("sha256:") for each in lines)


async def test_audit_has_every_push_and_deletion(tmp_path: Path) -> None:
    """Manifests, blobs and tags have a line, and the steps of an upload have none."""
    path = tmp_path / "audit.log"
    config = await hosting(tmp_path, audit={"file": str(path)})
    async with serving(config) as mirror, await Pusher.open(mirror.address) as pusher:
        digest = await pusher.image("1", b"layer")
        for target in ("manifests/1", f"manifests/{digest}", f"blobs/{Digest.of(b'layer')}"):
            assert (await pusher.ask("DELETE", target)).status == 202
        await pusher.ask("DELETE", await pusher.session())
    text = await asyncio.to_thread(path.read_text)
    lines = [json.loads(line) for line in text.splitlines()]
    assert [each["event"] for each in lines] == ["pushed"] * 3 + ["deleted"] * 3
    assert {each["rule"] for each in lines} == {"rule 1 (office)"}
    assert {each["client"] for each in lines} == {OFFICE}
    assert lines[2]["digest"] == str(digest)
