"""TLS of the listener: protocol versions, and errors about wrong certificate and key files."""

import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from mirror.util.tls import (
    ClientCertificates,
    client_context,
    renew,
    server_context,
    without_certificates,
)
from tests.fakes.tls import Authority


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A file with a certificate and its key."""
    return Authority(tmp_path).server_file


def test_tls_refuses_old_versions(pair: Path) -> None:
    """TLS 1.2 is the oldest version; clients need no certificate."""
    context = server_context(pair, pair)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE


def test_tls_key_of_another_certificate_is_refused(pair: Path, tmp_path: Path) -> None:
    """The error names both files."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other").server_file
    with pytest.raises(ValueError, match=f"{other} is not the key of the certificate in {pair}"):
        server_context(pair, other)


def test_tls_files_of_another_kind_are_refused(pair: Path, tmp_path: Path) -> None:
    """The error says what each file must be."""
    (tmp_path / "x").write_text("no certificate")
    for certificate, key in ((tmp_path / "x", pair), (pair, tmp_path / "x")):
        with pytest.raises(ValueError, match=r"must have the certificate .* both as PEM"):
            server_context(certificate, key)


def test_tls_key_with_a_passphrase_is_refused(pair: Path, tmp_path: Path) -> None:
    """The error replaces OpenSSL's question on the terminal of a service."""
    key = ec.generate_private_key(ec.SECP256R1())
    locked = BestAvailableEncryption(b"secret")
    (tmp_path / "locked").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    with pytest.raises(ValueError, match="has a passphrase: store the key without one"):
        server_context(pair, tmp_path / "locked")


def test_tls_renew_keeps_the_old_pair_if_the_new_one_is_refused(pair: Path, tmp_path: Path) -> None:
    """A refused pair leaves the context usable."""
    context = server_context(pair, pair)
    (tmp_path / "x").write_text("no certificate")
    with pytest.raises(ValueError, match="both as PEM"):
        renew(context, pair, tmp_path / "x")
    renew(context, pair, pair)


def test_client_context_trusts_the_system_and_is_made_once() -> None:
    """Names are checked, certificates are needed, and HTTP/1.1 is all that is offered."""
    context = client_context()
    assert context is client_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_contexts_of_an_import_load_no_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only while the import runs; a context that was made meanwhile trusts nobody."""
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path).ca_file))
    with without_certificates():
        assert ssl.create_default_context().cert_store_stats()["x509_ca"] == 0
    context = ssl.create_default_context()
    assert context.cert_store_stats()["x509_ca"] >= 1
    assert "set_default_verify_paths" not in vars(ssl.SSLContext)


def test_aiohttp_is_imported_without_certificates() -> None:
    """Each of its two contexts would cost a server 20 ms of its start."""
    program = (
        "import mirror.upstream, aiohttp.connector as c; "
        "print(c._SSL_CONTEXT_VERIFIED.cert_store_stats(), c._SSL_CONTEXT_VERIFIED.verify_mode)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "{'x509': 0, 'crl': 0, 'x509_ca': 0} 2\n"


def test_client_certificates_are_asked_for(tmp_path: Path) -> None:
    """A certificate may be needed or not; without tickets no session outlives its certificate."""
    authority = Authority(tmp_path)
    pair = authority.server_file
    certificate, _ = authority.issue(tmp_path, "lost")
    authority.revoke(tmp_path / "crl.pem", certificate)
    context = server_context(pair, pair, ClientCertificates(authority.ca_file))
    assert (context.verify_mode, context.num_tickets) == (ssl.CERT_OPTIONAL, 0)
    context = server_context(
        pair, pair, ClientCertificates(authority.ca_file, required=True, revoked=tmp_path / "crl.pem")
    )
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF


def test_wrong_files_for_client_certificates_are_refused(tmp_path: Path) -> None:
    """The error says what each file must have."""
    authority = Authority(tmp_path)
    pair = authority.server_file
    leaf, key = authority.issue(tmp_path, "leaf")
    (tmp_path / "x").write_text("no certificate")
    for file, reason in (
        (tmp_path / "x", "must have the certificate of the authority"),
        (key, "must have the certificate of the authority"),
        (leaf, "has no certificate of an authority"),
    ):
        with pytest.raises(ValueError, match=reason):
            server_context(pair, pair, ClientCertificates(file))
    for file in (tmp_path / "x", authority.ca_file):
        with pytest.raises(ValueError, match="must have a certificate revocation list"):
            server_context(pair, pair, ClientCertificates(authority.ca_file, revoked=file))
