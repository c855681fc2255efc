"""A client that asks without a pause at a saturated mirror: its requests begin later, no other one's."""

import asyncio
import json
from collections import defaultdict
from pathlib import Path

from aiohttp import web

from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_MANIFEST
from mirror.util.fairness.processor_shares import LOOK_SECONDS, RequestShare
from tests.fakes.site import Seen, Site
from tests.running import Running, configured, serving
from tests.wire import Wire

BODY = json.dumps({"schemaVersion": 2, "config": {}, "layers": []}).encode()
BUSY, OTHER = "127.0.0.2", "127.0.0.3"
HEAD = f"/v2/u.test/a/manifests/{Digest.of(BODY)}"


class Shares:
    """The shares that the requests of each client have had, in a mirror with a clock that the test moves."""

    def __init__(self, mirror: Running) -> None:
        self.of: dict[str, list[RequestShare]] = defaultdict(list)
        self.now = 0.0
        shares = mirror.service.processor_shares
        shares.saturated = lambda: True
        shares._clock = lambda: self.now
        begin = shares.begin

        def noted(client: str) -> RequestShare:
            share = begin(client)
            self.of[client].append(share)
            return share

        shares.begin = noted  # type: ignore[method-assign]

    def delays(self, client: str) -> list[float]:
        return [each.delay for each in self.of[client]]


async def test_busy_client_waits_while_another_has_a_request(tmp_path: Path) -> None:
    """Requests that take the full path begin later, one by one; the other client's begins at once.

    What the response cache answers has no share. The time of look-ups counts for the client that caused them.
    """
    gate, arrived = asyncio.Event(), asyncio.Event()

    async def upstream(_: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        if seen.path.endswith("/gated"):
            arrived.set()
            await gate.wait()
        elif "/b" in seen.path:
            return web.Response(status=404)
        return web.Response(body=BODY, content_type=OCI_MANIFEST)

    async with Site(upstream) as site, serving(configured(tmp_path, {"u.test": site.url})) as mirror:
        shares = Shares(mirror)
        async with (
            await Wire.open(mirror.address, client=BUSY) as busy,
            await Wire.open(mirror.address, client=OTHER) as other,
        ):
            for _ in range(4):  # the first is a miss, the third is remembered
                busy.send("GET", HEAD)
                assert (await busy.reply()).status == 200
            assert shares.delays(BUSY) == [0.0] * 3
            other.send("GET", "/v2/u.test/a/manifests/gated")
            await arrived.wait()
            shares.now += 2 * LOOK_SECONDS
            for number in range(4):
                busy.send("GET", f"/v2/u.test/a/manifests/b{number}")
                assert (await busy.reply()).status == 404
            delays = shares.delays(BUSY)[3:]
            assert delays[0] == 0
            assert 0 < delays[1] < delays[2] < delays[3]
            assert all(each.seconds > 0 for each in shares.of[BUSY][3:])
            busy.send("GET", HEAD)
            assert (await busy.reply()).status == 200
            assert len(shares.of[BUSY]) == 7
            other.writer.close()
        async with await Wire.open(mirror.address, client=OTHER) as other:
            other.send("GET", HEAD, ["X-Other: head"])
            assert (await other.reply()).status == 200
        assert shares.delays(OTHER) == [0.0, 0.0]
        gate.set()
