"""The mirror at its address: not there, another program, or serving and in trouble."""

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from mirror.config.server import ServerSettings
from mirror.doctor.finding import Severity
from mirror.doctor.running import examine_running
from mirror.system.addresses import reachable
from tests.fakes.tls import Authority
from tests.running import configured, serving
from tests.unit.setup.test_running_mirror import answering


def server(*listen: str, **values: Any) -> ServerSettings:
    return ServerSettings(listen=listen, **values)


def test_mirror_that_does_not_run() -> None:
    """A port where nothing listens says how to start."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        (found,) = examine_running(server(f"127.0.0.1:{bound.getsockname()[1]}")).findings
    assert (found.severity, "systemctl start" in found.mend) == (Severity.WARNING, True)


def test_port_of_another_program() -> None:
    """The program that has the port is named, with its process."""
    with answering({}, status=404) as address:
        (found,) = examine_running(server(address)).findings
    assert found.severity is Severity.ERROR
    assert f"(pid {os.getpid()})" in found.what


async def test_mirror_that_serves_is_fine(tmp_path: Path) -> None:
    """The process is known, for the limits that it has."""
    async with serving(configured(tmp_path, {"docker.io": "http://127.0.0.1:1"})) as mirror:
        port = mirror.address.rpartition(":")[2]
        found = await asyncio.to_thread(examine_running, server(f":{port}"))
    assert [each.severity for each in found.findings] == [Severity.FINE]
    assert found.pid == os.getpid()


def test_mirror_over_tls_is_found(tmp_path: Path) -> None:
    """Neither the right CA nor a certificate for another name makes it another program."""
    authority = Authority(tmp_path)
    pair = {"tls_certificate": authority.server_file, "tls_key": authority.server_file}
    with answering({"registry-mirror": "1", "upstreams": [{"name": "a"}]}, authority=authority) as address:
        for ca in (authority.ca_file.read_text(), None):
            (found,) = examine_running(server(address, **pair), ca).findings
            assert found.severity is Severity.FINE


SOURCE = {"source": "s.test", "breaker": "open", "accounts": [{"account": "me", "refused": True}]}
TROUBLE = {"what": "writing", "kind": "full", "reason": "the disk is full", "to_do": "make room", "since": 0}


@pytest.mark.parametrize(
    ("state", "severities"),
    [
        ({}, ["warning"]),
        ([], ["warning"]),
        (
            {"cache": {"trouble": []}, "log": {"losing_lines": False}, "upstreams": {"a": {"sources": []}}},
            [],
        ),
        (
            {
                "cache": {"trouble": [TROUBLE]},
                "log": {"losing_lines": True, "lines_dropped": 3},
                "upstreams": {"a": {"sources": [SOURCE]}},
            },
            ["error", "warning", "warning", "error"],
        ),
    ],
)
def test_state_of_the_mirror_becomes_findings(state: object, severities: list[str]) -> None:
    """Disk trouble, lost lines, an open breaker and a refused password are told with their remedies."""
    with (
        answering(state) as address,
        answering({"registry-mirror": "1", "upstreams": [{"name": "a"}]}) as own,
    ):
        found = examine_running(server(own, operations_listen=(address,))).findings[1:]
    assert [str(each.severity) for each in found] == severities
    assert all(each.mend for each in found)
    json.dumps([each.what for each in found])


def test_reachable_address_of_every_address() -> None:
    """Loopback stands for an address that means every one."""
    assert [reachable(each) for each in (":5000", "0.0.0.0:1", "10.0.0.1:2")] == [
        "127.0.0.1:5000",
        "127.0.0.1:1",
        "10.0.0.1:2",
    ]
