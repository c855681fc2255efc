"""The options of the server: limits, addresses, TLS, and errors in plain words."""

import os
from pathlib import Path

import pytest

from mirror.config.loader import load
from tests.unit.config.refusals import refusal


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[server]\nlisten = ['a:99999']", "'a:99999' is not HOST:PORT, for instance 127.0.0.1:5000"),
        ("[server]\nlisten = ['::1:5000']", "is not HOST:PORT"),
        ("[server]\nlisten = ['localhost']", "'localhost' is not HOST:PORT"),
        ("[server]\nlisten = ['500000']", "'500000' is not HOST:PORT"),
        ("[server]\nlisten = ['::1:5000', ':5000', 'a:99999']", "'::1:5000', 'a:99999' are not HOST:PORT"),
        ("[server]\nlisten = []", "needs at least one"),
        ("[server]\nlisten = 5", "must be a list of texts in quotes, not 5"),
        ("[server]\nworkers = 0", 'must be "auto" or a whole number from 1 to 64, not 0'),
        ("[server]\nworkers = 65", 'must be "auto" or a whole number from 1 to 64, not 65'),
        ("[server]\nworkers = true", 'must be "auto" or a whole number from 1 to 64, not True'),
        ("[server]\nworkers = 'many'", "whole number from 1 to 64, not 'many'"),
        ("[server]\nheader_timeout = 'soon'", "must be a time, for instance 500ms, 30s, 10m, 1h or 2d"),
        ("[server]\nheader_timeout = true", "(a plain number is seconds), not True"),
        ("[server]\nheader_timeout = 0", "must be more than 0"),
        ("[server]\nheader_timeout = '0ms'", "must be more than 0"),
        ("[server]\nheader_timeout = inf", "must be a finite number"),
        ("[server]\ntls_certificate = '/dev/null'", "tls_certificate belong together: give both or none"),
        ("[server]\ntls_key = '/dev/null'", "tls_certificate belong together: give both or none"),
        ("[server]\ntls_key = '/nowhere/key'", "/nowhere/key cannot be read: No such file"),
        ("[server]\ntls_certificate = '/dev/null'\ntls_key = '/dev/null'", "both as PEM"),
        ("[server]\nwhen_unavailable = 'x'", "must be 'auto', 'next' or 'honest', not 'x'"),
    ],
)
def test_server_option_beyond_its_limits_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """The error names the key and what would be right."""
    assert reason in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("given", "addresses"), [("':5000'", (":5000",)), ("['5000', '[::1]:1']", (":5000", "[::1]:1"))]
)
def test_listen_accepts_a_port_alone(tmp_path: Path, given: str, addresses: tuple[str, ...]) -> None:
    """A port alone, with a colon or without, stands for every address."""
    file = tmp_path / "mirror.toml"
    file.write_text(f"[server]\nlisten = {given}\n")
    assert load(file, {"HOME": "/home/me"}, {}).config.server.listen == addresses
    assert load(None, {"HOME": "/home/me"}, {"listen": ["5000"]}).config.server.listen == (":5000",)


@pytest.mark.parametrize(("given", "processes"), [("3", 3), ("64", 64), ("auto", None), ("", 1)])
def test_workers_is_a_number_or_auto(given: str, processes: int | None) -> None:
    """The number may be text, as in the environment; "auto" is one worker per usable processor."""
    config = load(None, {"HOME": "/home/me", "REGISTRY_MIRROR_SERVER_WORKERS": given}, {}).config
    assert config.server.processes() == (processes or min(len(os.sched_getaffinity(0)), 64))
