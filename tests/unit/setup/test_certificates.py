"""Certificates of a file, and the root among them."""

from pathlib import Path

import pytest

from mirror.setup.certificates import read_ca, root_of
from mirror.setup.plan import SetupError
from tests.fakes.tls import Authority


def test_ca_is_what_is_a_certificate(tmp_path: Path) -> None:
    """A key in the same file is never handed on."""
    authority = Authority(tmp_path)
    found = read_ca(authority.server_file)
    assert "PRIVATE" in authority.server_file.read_text()
    assert "PRIVATE" not in found
    assert found.count("BEGIN CERTIFICATE") == 1
    (tmp_path / "empty").write_text("x")
    with pytest.raises(SetupError, match="no certificate"):
        read_ca(tmp_path / "empty")
    with pytest.raises(SetupError, match="cannot be read"):
        read_ca(tmp_path / "none")


def test_root_of_a_chain_is_its_self_signed_certificate(tmp_path: Path) -> None:
    """A server's certificate alone has no root; with its CA behind it, it has."""
    authority = Authority(tmp_path)
    assert root_of(authority.server_file) is None
    chain = tmp_path / "chain.pem"
    chain.write_text(authority.server_file.read_text() + authority.ca_file.read_text())
    assert (root_of(chain) or "").strip() == authority.ca_file.read_text().strip()
