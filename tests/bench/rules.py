"""Small responses for ten thousand clients with tokens, under a thousand rules, beside no rules at all."""

import dataclasses
import time
from itertools import chain
from pathlib import Path

from mirror.access.tokens import TokenEntry, digest_of, new_secret
from mirror.store.tokens.token_file import write_tokens
from tests.bench.bench import Bench, check
from tests.bench.client import Small, fetch, wrk
from tests.bench.contestants import MIRROR, WITHOUT_RULES, Running
from tests.bench.machine import cpu_seconds
from tests.e2e.mirror import Mirror

RULES, CLIENTS, CONNECTIONS = 1000, 10_000, 32

# The headers of the clients, one after another; a line of the file is the value of Authorization, or empty.
TURNS = """
local requests, turn = {}, 0
init = function(arguments)
  turn = tonumber(arguments[2])
  for line in io.lines(arguments[1]) do
    table.insert(requests, wrk.format(nil, nil, line ~= "" and {["Authorization"] = line} or nil))
  end
end
request = function() turn = turn % #requests + 1; return requests[turn] end
"""

# Nothing is allowed that no rule allows; each rule is about ten of the clients.
CONFIG = "[access]\ndefault = 'deny'\n" + "".join(
    f"[[rule]]\nname = 'team {number}'\neffect = 'allow'\nidentities = ['token:team{number}-*']\n"
    for number in range(RULES)
)


def rules_small(bench: Bench) -> None:
    """Measure a manifest by digest; the clients take turns, so that each has been here before."""
    with bench.origin() as origin:
        for name in bench.turns(MIRROR, WITHOUT_RULES):
            config = CONFIG if name == MIRROR else ""
            with bench.attempt("rules-small", name), bench.cold(name, origin, config) as server:
                headers = _tokens(server) if name == MIRROR else [""] * CLIENTS
                _measure(bench, name, server, headers)


def _measure(bench: Bench, name: str, server: Running, headers: list[str]) -> None:
    path, listed = bench.site.warm.by_digest, bench.folder()
    listed.write_text("\n".join(headers) + "\n")
    first = dataclasses.replace(server, headers={"Authorization": headers[0]} if headers[0] else {})
    fetch(first, bench.site.warm.by_tag)
    check(first, path)
    visited = 0
    while visited < CLIENTS:  # all of them once
        visited += int(_load(bench, server, listed, visited).rate * bench.options.seconds)
    before = cpu_seconds(server.pid)
    found = _load(bench, server, listed, visited)
    used = cpu_seconds(server.pid) - before
    bench.add("rules-small", name, found.rate)
    bench.add("rules-small-p99", name, found.p99)
    bench.add("rules-small-cpu", name, used / (found.rate * bench.options.seconds) * 1e6)


def _load(bench: Bench, server: Running, headers: Path, turn: int) -> Small:
    """Run wrk, whose first client is the one behind number `turn`."""
    script = bench.folder()
    script.write_text(TURNS)
    path, more = bench.site.warm.by_digest, ["--", str(headers), str(turn)]
    return wrk(server, path, CONNECTIONS, bench.options.seconds, ["-s", str(script)], more)


def _tokens(server: Running) -> list[str]:
    """Give each client a token; return the headers."""
    assert isinstance(server.process, Mirror)
    secrets = [new_secret() for _ in range(CLIENTS)]
    names = chain.from_iterable(
        (f"team{team}-{number}" for number in range(CLIENTS // RULES)) for team in range(RULES)
    )
    pairs = zip(names, secrets, strict=True)
    entries = (TokenEntry(name, digest_of(secret), time.time()) for name, secret in pairs)
    write_tokens(server.process.cache / "tokens", entries)  # no token was used yet, so none is known
    return [f"Bearer {secret}" for secret in secrets]
