"""An upstream whose first byte comes after the client's time limit: the fill goes on, a retry joins it."""

from pathlib import Path

import pytest

from mirror.config.endpoints import UpstreamSettings
from mirror.upstream.http.transport import BLOB_PATIENCE
from mirror.web.registry_api import RegistryApi
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, NEVER, mirror_of
from tests.wire import Wire, get

X = "library/x"


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("size", [1000, 400_000, LARGE])
async def test_late_first_byte_comes_to_the_retry(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, *, named: bool
) -> None:
    """The first client gets an error in time; the next one gets the answer to the first one's request."""
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    image = fake.add_image(X, "t", [data])
    path = f"/v2/docker.io/{X}/blobs/{image.layers[0]}"
    apis: list[RegistryApi] = []
    handle = RegistryApi.handle

    async def remember(self: RegistryApi, *arguments: object) -> object:
        apis.append(self)
        return await handle(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RegistryApi, "handle", remember)
    async with mirror_of(fake, tmp_path / "cache", server={"header_timeout": 0.05}) as mirror:
        gate = fake.hold(image.layers[0], after=-1)
        if named:
            await get(mirror.address, f"/v2/docker.io/{X}/manifests/t")
        assert (await get(mirror.address, path)).status == 504
        while not gate.reached.is_set():  # the limit may be over before the upstream is asked
            assert (await get(mirror.address, path)).status == 504
        assert gate.waiting == 1
        flight = mirror.service.cache._blobs._flights.get(image.layers[0])
        assert flight is not None
        apis[0]._header_timeout = NEVER
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", path)
            while not flight.clients:  # no event tells
                await get(mirror.address, "/healthz")
            gate.release()
            reply = await wire.reply()
        assert (reply.status, reply.body) == (200, data)
        assert fake.requests("GET", image.layers[0]) == 1


def test_late_first_byte_is_within_the_limits_of_a_request() -> None:
    """A registry that fetches the blob itself first answers after 35 s, for instance."""
    limit = UpstreamSettings(name="docker.io", url="https://registry-1.docker.io").read_timeout
    assert BLOB_PATIENCE * limit >= 60
