"""Certificate authority for servers on 127.0.0.1, and for the name hub.test."""

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HERE = (x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("hub.test"))


class Authority:
    """Certificate authority. It writes its files in the constructor, so make it off the loop.

    `ca_file` is the certificate that clients must trust, `server_file` the server's key and certificate.
    """

    def __init__(self, folder: Path, lifetime: timedelta = timedelta(days=1)) -> None:
        """Set `lifetime`, how long from now the server's certificate is valid; below zero, it has expired."""
        self.ca_file = folder / "ca.pem"
        key, name = ec.generate_private_key(ec.SECP256R1()), _name("test authority")
        self._key = key
        certificate = _certificate(name, name, key.public_key(), key, ca=True)
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        server_key = ec.generate_private_key(ec.SECP256R1())
        server = _certificate(
            _name("127.0.0.1"), name, server_key.public_key(), key, ca=False, lifetime=lifetime
        )
        self.server_file = folder / "server.pem"
        self.server_file.write_bytes(_pem(server_key) + server.public_bytes(serialization.Encoding.PEM))
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(self.server_file)

    def issue(
        self, folder: Path, name: str, subject: x509.Name | None = None, **options: Any
    ) -> tuple[Path, Path]:
        """Write a certificate of this authority for `name`, and its key; return both files.

        `subject`: other than the common name `name`. `options`: of `_certificate`.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(
            subject or _name(name), _name("test authority"), key.public_key(), self._key, ca=False, **options
        )
        files = (folder / f"{name}.crt", folder / f"{name}.key")
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(_pem(key))
        return files

    def revoke(self, file: Path, certificate: Path, lifetime: timedelta = timedelta(days=1)) -> None:
        """Write a revocation list with this certificate. `lifetime`: of the list, from now on."""
        now = datetime.now(UTC)
        serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
        revoked = (
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - timedelta(hours=2))
        ).build()
        crl = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name("test authority"))
            .last_update(now - timedelta(hours=2))
            .next_update(now + lifetime)
            .add_revoked_certificate(revoked)
            .sign(self._key, hashes.SHA256())
        )
        file.write_bytes(crl.public_bytes(serialization.Encoding.PEM))

    def asking_context(self, mode: ssl.VerifyMode = ssl.CERT_REQUIRED) -> ssl.SSLContext:
        """Return a context for servers that ask clients for a certificate of this authority. Reads files."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca_file)
        context.load_cert_chain(self.server_file)
        context.verify_mode = mode
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return a context for clients that trust this authority and no other. Reads files."""
        return ssl.create_default_context(cafile=self.ca_file)

    def server_context(self) -> ssl.SSLContext:
        return self._context


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
    lifetime: timedelta = timedelta(days=1),
    begins: timedelta = timedelta(hours=-1),
    alternatives: Sequence[x509.GeneralName] = HERE,
    usage: Sequence[x509.ObjectIdentifier] = (),
) -> x509.Certificate:
    """Sign a certificate. `begins`, `lifetime`: its validity, from now; `usage`: of its key, () for any."""
    now = datetime.now(UTC)
    alternative = x509.SubjectAlternativeName(alternatives)
    builder = x509.CertificateBuilder()
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    return (
        builder.subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(alternative, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .sign(issuer_key, hashes.SHA256())
    )
