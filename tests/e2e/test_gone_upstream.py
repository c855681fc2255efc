"""Clients that came by the mirror's name while the upstream is gone: each stops at once, and says why.

Requests are counted, not seconds: a client that asks again pauses for seconds each time.
"""

import asyncio
import json
from pathlib import Path

import pytest

from tests.e2e.clients import complaint
from tests.e2e.matrix.tools import tool
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.pinned import pinned
from tests.programs import program
from tests.running import configured, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

INSTALLED = {name for name, client in pinned().items() if client.installed}
CLIENTS = ("crane", "regctl", "oras", "helm", "skopeo")
REASON = "closed without an answer"


def command(name: str, address: str, folder: Path) -> list[str | Path]:
    """Return the command by which a client pulls from docker.io by the mirror's name."""
    reference = f"{address}/docker.io/library/x"
    if name == "crane":
        return [tool(name), "pull", f"{reference}:1", folder / "x.tar"]
    if name == "regctl":
        return [tool(name), "image", "copy", f"{reference}:1", f"ocidir://{folder}/x:1"]
    if name == "oras":
        return [tool(name), "copy", "--from-plain-http", "--to-oci-layout", f"{reference}:1", f"{folder}:1"]
    if name == "helm":
        return [tool(name), "pull", f"oci://{reference}", "--version", "1.0.0", "--plain-http"]
    flags = ["--insecure-policy", "copy", "--src-tls-verify=false"]
    return [program(name), *flags, f"docker://{reference}:1", f"dir:{folder}/x"]


async def pull(name: str, address: str, folder: Path) -> str:
    """Pull, and return the complaint."""
    if name != "skopeo" and name not in INSTALLED:
        pytest.skip(f"{name} is not installed")  # test_pinned_clients_are_installed names it
    config = folder / "regctl.json"
    await asyncio.to_thread(config.write_text, json.dumps({"hosts": {address: {"tls": "disabled"}}}))
    env = {"HOME": str(folder), "REGCTL_CONFIG": str(config)}
    return await asyncio.to_thread(lambda: complaint(command(name, address, folder), env))


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("fault", [Fault(raw=b""), Fault(status=503)], ids=["no answer", "503"])
@pytest.mark.parametrize("name", CLIENTS)
async def test_client_stops_where_the_upstream_is_gone(
    fake: FakeRegistry, tmp_path: Path, name: str, fault: Fault
) -> None:
    """One request, and the client's error has the reason in the mirror's words."""
    fake.fault(fault, times=10_000)
    async with serving(configured(tmp_path / "cache", {"docker.io": fake.url})) as mirror:
        said = await pull(name, mirror.address, tmp_path)
        assert REASON in said or "answered 503" in said or name == "oras"  # which sends a HEAD
        assert await mirror.metric('registry_mirror_requests_total{kind="manifest",outcome="error"}') == 1


async def test_crane_asks_again_where_the_mirror_is_honest(fake: FakeRegistry, tmp_path: Path) -> None:
    """Crane asks several times at 502, which the option has in place of 424."""
    fake.fault(Fault(raw=b""), times=10_000)
    honest = {"when_unavailable": "honest"}
    async with serving(configured(tmp_path / "cache", {"docker.io": fake.url}, server=honest)) as mirror:
        assert REASON in await pull("crane", mirror.address, tmp_path)
        assert await mirror.metric('registry_mirror_requests_total{kind="manifest",outcome="error"}') > 1
