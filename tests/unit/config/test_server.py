"""The options of the server: limits, addresses, TLS, and errors in plain words."""

import os
import ssl
from pathlib import Path

import pytest

from mirror.config.loader import load
from tests.fakes.tls import Authority
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


def test_client_certificates_need_files_that_fit(tmp_path: Path) -> None:
    """Each error says what is missing, at the start and not at the first connection."""
    authority = Authority(tmp_path)
    pair = f"[server]\ntls_certificate = '{authority.server_file}'\ntls_key = '{authority.server_file}'\n"
    leaf, _ = authority.issue(tmp_path, "leaf")
    ca = f"client_ca = '{authority.ca_file}'\n"
    for text, reason in (
        (f"[server]\n{ca}", "client_ca: needs TLS: give tls_certificate and tls_key too"),
        (f"{pair}client_ca = '{leaf}'", "has no certificate of an authority (CA:TRUE)"),
        (f"{pair}client_ca = '/dev/null'", "must have the certificate of the authority that signs clients"),
        (f"{pair}client_certificates = 'required'", 'is "required" without client_ca'),
        (f"{pair}client_crl = '{authority.ca_file}'", "client_crl: needs client_ca"),
        (f"{pair}{ca}client_crl = '{leaf}'", "must have a certificate revocation list"),
        ("[server]\nproxy_protocol = ['10.0.0.1/8']", "10.0.0.0/8"),
    ):
        assert reason in refusal(tmp_path, text)


def test_client_certificates_configure_the_listener(tmp_path: Path) -> None:
    """The listener asks for a certificate, and needs one if the option says so."""
    authority = Authority(tmp_path)
    file = tmp_path / "mirror.toml"
    pair = f"[server]\ntls_certificate = '{authority.server_file}'\ntls_key = '{authority.server_file}'\n"
    for line, mode in (
        ("", ssl.CERT_NONE),
        (f"client_ca = '{authority.ca_file}'", ssl.CERT_OPTIONAL),
        (f"client_ca = '{authority.ca_file}'\nclient_certificates = 'required'", ssl.CERT_REQUIRED),
    ):
        file.write_text(pair + line)
        context = load(file, {"HOME": "/home/me"}, {}).config.server.tls()
        assert context is not None
        assert context.verify_mode is mode
