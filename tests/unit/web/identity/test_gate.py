"""The gate: rules that are replaced hold from the next request on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from mirror.config.loader import ConfigError
from mirror.config.schema import Config
from mirror.oci.reference import Repository, Target, TargetKind, Via
from mirror.service.service import Service
from mirror.web.access_control import PROXIED, AccessDenied
from mirror.web.identity.challenge import LoginRequired
from mirror.web.identity.gate import Gate
from mirror.web.request_log import RequestRecord
from tests.running import configured

TAGS = Target(TargetKind.TAGS, Via.ROOT, "hub.test", Repository("hub.test", "x"))


def config(tmp_path: Path, **access: Any) -> Config:
    return configured(tmp_path / "cache", {"hub.test": "http://127.0.0.1:1"}, access=access)


@asynccontextmanager
async def opened(tmp_path: Path, **access: Any) -> AsyncIterator[tuple[Gate, Service]]:
    chosen = config(tmp_path, **access)
    service = await Service.open(chosen)
    gate = Gate(service, chosen)
    await gate.start()
    yield gate, service
    await gate.close()
    await service.close()


async def passes(gate: Gate, epoch: int = 0) -> bool:
    record = RequestRecord(make_mocked_request("GET", "/v2/", headers={"Host": "mirror.lan"}), 0, epoch)
    await gate.identify(record)
    try:
        gate.authorise(record, TAGS)
    except AccessDenied as denied:
        if isinstance(answer := gate.instead_of(denied, record, TAGS), LoginRequired):
            raise answer from None
        return False
    return True


async def test_request_waits_for_the_rules_of_a_reload(tmp_path: Path) -> None:
    read = Event()

    def load() -> Config:
        read.wait(60)
        return config(tmp_path, default="deny")

    async with opened(tmp_path) as (gate, _):
        assert await passes(gate)
        gate.adopt_rules(load)
        waiting = asyncio.ensure_future(passes(gate))
        await asyncio.sleep(0)
        assert not waiting.done()
        read.set()
        assert not await waiting
        assert not await passes(gate)


async def test_signal_of_a_reload_is_heeded_though_the_request_came_with_it(tmp_path: Path) -> None:
    """The access epoch has changed, and the signal's handler runs a turn of the loop later."""
    async with opened(tmp_path) as (gate, service):
        service.note_access_change()
        waiting = asyncio.ensure_future(passes(gate, service.access_epoch()))
        await asyncio.sleep(0)
        gate.adopt_rules(lambda: config(tmp_path, default="deny"))
        assert not await waiting


async def test_requests_that_came_with_the_signal_of_a_reload_all_wait(tmp_path: Path) -> None:
    """The first one that has seen the new epoch is no sign for the others that the rules are there."""
    async with opened(tmp_path) as (gate, service):
        service.note_access_change()
        waiting = [asyncio.ensure_future(passes(gate, service.access_epoch())) for _ in range(3)]
        await asyncio.sleep(0)
        gate.adopt_rules(lambda: config(tmp_path, default="deny"))
        assert await asyncio.gather(*waiting) == [False] * 3


@pytest.mark.parametrize("error", [ConfigError("wrong"), OSError("gone"), ValueError("wrong")])
async def test_configuration_that_cannot_be_read_changes_nothing(tmp_path: Path, error: Exception) -> None:
    def load() -> Config:
        raise error

    async with opened(tmp_path, default="deny") as (gate, _):
        gate.adopt_rules(load)
        assert not await passes(gate)


async def test_reload_behind_the_end_is_of_no_effect(tmp_path: Path) -> None:
    """The signal may come while a process ends: it reads nothing, and nothing is in the log."""
    async with opened(tmp_path) as (gate, _):
        await gate.close()
        gate.adopt_rules(lambda: pytest.fail("nobody is answered by these rules"))


async def test_reload_takes_up_the_names_for_logins(tmp_path: Path) -> None:
    async with opened(tmp_path) as (gate, _):
        gate.adopt_rules(lambda: config(tmp_path, default="deny", login_hosts=["mirror.lan"]))
        with pytest.raises(LoginRequired):
            await passes(gate)
        record = RequestRecord(make_mocked_request("GET", "/token", headers={"Host": "mirror.lan"}))
        await gate.identify(record)
        assert gate.token_service(record) is not None


async def test_reload_takes_up_what_is_private_and_the_proxies(tmp_path: Path) -> None:
    """A connection that is older than the configuration gets no answer by the old one."""
    account = {"username": "u", "password": "p"}

    def with_private(who: str) -> Config:
        upstream = {"hub.test": {**account, "private": who}}
        server = {"trusted_proxies": ["10.0.0.1"] if who == "named" else []}
        return configured(
            tmp_path / "cache", {"hub.test": "http://127.0.0.1:1"}, upstream_of=upstream, server=server
        )

    for before, after in (("everybody", "named"), ("named", "everybody")):
        service = await Service.open(with_private(before))
        gate = Gate(service, with_private(before))
        await gate.start()
        assert gate.access.guards(TAGS) is (before == "named")
        gate.adopt_rules(partial(with_private, after))
        await passes(gate)
        assert gate.access.guards(TAGS) is (after == "named")
        assert (PROXIED in gate.access.scope("10.0.0.1")) is (after == "named")
        await gate.close()
        await service.close()
