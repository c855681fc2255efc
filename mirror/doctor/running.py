"""The running mirror: whether it serves at its addresses, and what it says of itself in /readyz."""

import http.client
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from msgspec import Struct

from mirror.config.server import ServerSettings
from mirror.doctor.finding import Diagnosis, error, fine, warning
from mirror.oci import json_text
from mirror.setup.plan import SetupError
from mirror.setup.running_mirror import find_mirror
from mirror.system.addresses import reachable
from mirror.system.port_owner import port_owner

PATIENCE = 10.0
LONGEST = 4 * 1024 * 1024

PID = re.compile(r"\(pid ([0-9]+)\)")


class RunningMirror(Struct, frozen=True):
    """Findings about the mirror's process, and its number if it is known."""

    findings: list[Diagnosis]
    pid: int | None = None


def examine_running(server: ServerSettings, ca: str | None = None) -> RunningMirror:
    """Return what is at the mirror's first address, and what /readyz says. `ca` is PEM."""
    address = reachable(server.listen[0])
    port = int(address.rpartition(":")[2])
    owner = port_owner(port)
    if owner is None and not _listens(address):
        return RunningMirror([_not_running(address)])
    scheme = "http" if server.tls_certificate is None else "https"
    try:
        find_mirror(f"{scheme}://{address}", ca)
    except SetupError as reason:
        if "not trusted here" not in str(
            reason
        ):  # a name that the certificate lacks: it is there all the same
            return RunningMirror([_taken(address, owner, reason)])
    found = PID.search(owner or "")
    findings = [fine(address, f"the mirror serves{f', {owner}' if owner else ''}")]
    probe = reachable(server.operations_listen[0]) if server.operations_listen else address
    if server.operations_listen or scheme == "http":
        findings += _ready(probe)
    return RunningMirror(findings, None if found is None else int(found[1]))


def _not_running(address: str) -> Diagnosis:
    return warning(
        address,
        "no mirror runs here",
        "clients go to the registries themselves, or fail",
        "systemctl start registry-mirror, or registry-mirror serve",
    )


def _taken(address: str, owner: str | None, reason: SetupError) -> Diagnosis:
    what = f"another program has this port: {owner or reason}"
    mend = "end that program, or give the mirror another port: server.listen"
    return error(address, what, "the mirror cannot start here", mend)


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with closing(http.client.HTTPConnection(host.strip("[]"), int(port), timeout=PATIENCE)) as connection:
        try:
            connection.connect()
        except OSError:
            return False
    return True


def _ready(address: str) -> list[Diagnosis]:
    """Return what /readyz says, as findings."""
    host, _, port = address.rpartition(":")
    try:
        with closing(http.client.HTTPConnection(host.strip("[]"), int(port), timeout=PATIENCE)) as connection:
            connection.request("GET", "/readyz")
            state = json_text.parse(connection.getresponse().read(LONGEST))
        return [*_troubles(address, state)]
    except (OSError, ValueError, http.client.HTTPException, KeyError, TypeError, AttributeError):
        mend = f"curl -v http://{address}/readyz"
        return [warning(address, "/readyz does not answer", "its state is not known", mend)]


def _troubles(address: str, state: dict[str, Any]) -> Iterator[Diagnosis]:
    for each in state["cache"]["trouble"]:
        yield error("cache", f"{each['what']}: {each['reason']}", "pulls go on, slower", each["to_do"])
    if state["log"]["losing_lines"]:
        what = f"lines of the log are lost, {state['log']['lines_dropped']} so far"
        yield warning("log", what, "faults leave no trace", "look at the disk or the pipe of the log")
    for name, upstream in state["upstreams"].items():
        for source in upstream["sources"]:
            if source["breaker"] == "open":
                what = f"the mirror does not use {source['source']} for now, after failures in a row"
                mend = "wait: it is tried again by itself; the log names the failures"
                yield warning(name, what, "what is not cached waits or comes from another source", mend)
            for account in source["accounts"]:
                if account["refused"]:
                    what = f"the password of {account['account']} was refused"
                    mend = "write the right one into password_file, or see where it comes from: config check"
                    yield error(name, what, "what is private cannot be pulled", mend)
