"""The supervisor's pure part; tests/e2e/test_workers.py covers its processes."""

from pathlib import Path

from mirror.server.supervisor import LONGEST_PAUSE, Hooks, Supervisor, restart_delay
from tests.running import configured


def test_restart_delay_grows_with_early_deaths() -> None:
    """The first early death has no delay; the delay of later ones doubles up to LONGEST_PAUSE."""
    assert [restart_delay(lives) for lives in range(6)] == [0, 0, 0.5, 1, 2, 4]
    assert restart_delay(1000) == LONGEST_PAUSE


def test_sockets_for_clients_and_for_operators_are_told_apart(tmp_path: Path) -> None:
    """A reload may move an address from one to the other, and unbinds what is in neither."""
    first, second = "127.0.0.1:0", "localhost:0"
    upstreams = {"docker.io": "http://127.0.0.1:9"}
    config = configured(tmp_path, upstreams, server={"listen": (first,), "operations_listen": (second,)})
    moved = configured(tmp_path, upstreams, server={"listen": (second,)})
    supervisor = Supervisor(config, Hooks(lambda: config, lambda *_: 0, lambda *_: None), [], tmp_path)
    clients, operations = supervisor._sockets_of(config), supervisor._operations_of(config)
    assert (clients, operations) == (supervisor._sockets[first], supervisor._sockets[second])
    assert (supervisor._sockets_of(moved), supervisor._operations_of(moved)) == (operations, [])
    supervisor._config = moved
    supervisor._unbind()
    assert list(supervisor._sockets) == [second]
    for each in operations:
        each.close()
