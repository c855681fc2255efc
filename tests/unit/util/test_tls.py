"""TLS of the listener: what is spoken, and what is said about files that are no certificate and key."""

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from mirror.util.tls import renew, server_context
from tests.fakes.tls import Authority


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A file with a certificate and its key."""
    return Authority(tmp_path).server_file


def test_old_versions_are_not_spoken(pair: Path) -> None:
    """TLS 1.2 is the oldest; clients are asked for no certificate."""
    context = server_context(pair, pair)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE


def test_the_key_of_another_certificate(pair: Path, tmp_path: Path) -> None:
    """Both files are named."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other").server_file
    with pytest.raises(ValueError, match=f"{other} is not the key of the certificate in {pair}"):
        server_context(pair, other)


def test_files_that_are_something_else(pair: Path, tmp_path: Path) -> None:
    """What each must be."""
    (tmp_path / "x").write_text("no certificate")
    for certificate, key in ((tmp_path / "x", pair), (pair, tmp_path / "x")):
        with pytest.raises(ValueError, match=r"must have the certificate .* both as PEM"):
            server_context(certificate, key)


def test_a_key_with_a_passphrase(pair: Path, tmp_path: Path) -> None:
    """Refused; never a question on a terminal that nobody sees."""
    key = ec.generate_private_key(ec.SECP256R1())
    locked = BestAvailableEncryption(b"secret")
    (tmp_path / "locked").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    with pytest.raises(ValueError, match="has a passphrase: store the key without one"):
        server_context(pair, tmp_path / "locked")


def test_a_pair_that_is_refused_replaces_nothing(pair: Path, tmp_path: Path) -> None:
    """What was served before can be served on."""
    context = server_context(pair, pair)
    (tmp_path / "x").write_text("no certificate")
    with pytest.raises(ValueError, match="both as PEM"):
        renew(context, pair, tmp_path / "x")
    renew(context, pair, pair)
