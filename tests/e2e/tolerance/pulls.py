"""Pulls by clients without a daemon, all at the same time: directly, and through a mirror."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.clients import complaint
from tests.e2e.matrix.content import not_whole
from tests.e2e.matrix.tools import tool
from tests.e2e.tolerance.images import Pullable, X
from tests.e2e.tolerance.situations import Situation
from tests.fakes.registry import FakeRegistry
from tests.pinned import pinned
from tests.programs import program
from tests.running import Running

TOOLS = ("skopeo", "containers-image", "crane", "regctl", "oras")
INSTALLED = {name for name, client in pinned().items() if client.installed} | {"skopeo"}


def command(name: str, reference: str, folder: Path) -> list[str | Path]:
    """Return the command by which a client writes an image into `folder`."""
    if name == "crane":
        return [tool(name), "pull", "--format=oci", reference, folder]
    if name == "regctl":
        return [tool(name), "image", "copy", reference, f"ocidir://{folder}:1"]
    if name == "oras":
        return [tool(name), "copy", "--from-plain-http", "--to-oci-layout", reference, f"{folder}:1"]
    if name == "containers-image":
        return [tool(name, "copy"), f"docker://{reference}", f"dir:{folder}"]
    flags = ["--insecure-policy", "copy", "--preserve-digests", "--src-tls-verify=false"]
    return [program("skopeo"), *flags, f"docker://{reference}", f"dir:{folder}"]


def _pull(name: str, address: str, folder: Path, image: Pullable) -> str:
    """Pull by one client; return its complaint, or what it lacks, "" for neither."""
    folder.mkdir(parents=True)
    config = folder / "regctl.json"
    config.write_text(json.dumps({"hosts": {address: {"tls": "disabled"}}}))
    env = {"HOME": str(folder), "REGCTL_CONFIG": str(config)}
    said = complaint(command(name, f"{address}/{X}:t", folder / "image"), env)
    return said or not_whole(folder / "image", image.digests)


async def pull(address: str, folder: Path, image: Pullable) -> dict[str, str]:
    """Pull by each client; return the complaints by client."""
    names = [name for name in TOOLS if name in INSTALLED]
    pulls = [asyncio.to_thread(_pull, name, address, folder / name, image) for name in names]
    return dict(zip(names, await asyncio.gather(*pulls), strict=True))


async def compare(
    fake: FakeRegistry,
    mirror: Running,
    image: Pullable,
    situation: Situation,
    folder: Path,
    *,
    better: bool = False,
) -> Mapping[str, str]:
    """Assert that each client that pulls directly pulls through the mirror, from a miss and then a hit.

    `better`: that each client does. Returns the complaints of the direct pulls.
    """
    situation(fake, image, len(TOOLS))
    direct = await pull(fake.url.removeprefix("http://"), folder / "direct", image)
    fake.forgive()
    situation(fake, image, 1)
    for number in range(2):
        through = await pull(mirror.address, folder / str(number), image)
        failed = {name: said for name, said in through.items() if said and (better or not direct[name])}
        assert failed == {}
    return direct
