"""The state of the mirror, for /readyz."""

import json
import re
from pathlib import Path

from structlog.testing import capture_logs

from mirror.config.types import Amount
from mirror.service.service import Service
from tests.running import configured, serving
from tests.wire import get


async def test_shortage_of_room_is_reported_at_start_and_in_readyz(tmp_path: Path) -> None:
    """One warning where min_free leaves nothing, an entry in /readyz (status 200), and a metric."""
    config = configured(tmp_path, {"docker.io": "http://127.0.0.1:9"})
    cache = config.cache.model_copy(update={"min_free": Amount(percent=100)})
    with capture_logs() as lines:
        async with serving(config.model_copy(update={"cache": cache})) as mirror:
            reply = await get(mirror.address, "/readyz")
            (trouble,) = json.loads(reply.body)["cache"]["trouble"]
            scrape = await get(mirror.address, "/metrics")
    (warning,) = [line for line in lines if line["log_level"] == "warning"]
    assert re.fullmatch(
        rf".* are free in {tmp_path}, and cache.min_free = .* leaves 0 B for the cache: "
        "nothing will be kept; free some space, or lower cache.min_free",
        warning["event"],
    )
    assert reply.status == 200
    assert warning["event"] == f"{trouble['reason']}; {trouble['to_do']}"
    assert (trouble["what"], trouble["kind"]) == ("keeping", "no_room")
    assert b'registry_mirror_cache_trouble{kind="no_room",what="keeping"} 1.0' in scrape.body


async def test_state_names_each_upstream_and_no_tier(tmp_path: Path) -> None:
    service = await Service.open(configured(tmp_path, {"docker.io": "http://127.0.0.1:9"}))
    assert list(service.state.upstreams()) == ["docker.io"]
    assert (service.state.shared(), service.state.troubles()) == (None, [])
    await service.close()
