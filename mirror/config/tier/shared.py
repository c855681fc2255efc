"""The options of the shared tier: an object store, and a coordinator of leases, that several mirrors use."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from mirror.config.logins import CredentialFile
from mirror.config.types import (
    FOREVER,
    DurationOrForever,
    Networks,
    Password,
    ReadableFile,
    SecretStr,
    Size,
    Timeout,
)
from mirror.config.validation import After, Beside, Doc, Settings

# A bucket and a prefix below it. S3 allows more in keys; these need no quoting anywhere.
BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9._-]{1,100}){0,8})/?")

# The coordinator that needs no other program: leases are objects in the bucket itself.
BUCKET_COORDINATOR = "bucket"

REDIS_SCHEMES = ("redis", "rediss")

# A host name or address, and a port.
LISTEN = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{0,253}):[0-9]{1,5}")

# The shortest secret of all mirrors, in characters.
SHORTEST_SECRET = 16

# Libraries of the package's extra, by the option that needs them.
LIBRARIES = {"url": "obstore", "coordinator": "redis"}


class Bucket(Struct, frozen=True):
    """A bucket's name, and the prefix of all keys, without slashes at its ends; "" for none."""

    name: str
    prefix: str


def _check_installed(option: str) -> None:
    """Refuse an option whose library is not installed; it is not imported here."""
    if find_spec(LIBRARIES[option]) is None:
        raise ValueError("needs packages of the extra: pip install 'registry-mirror[shared]'")


def _check_bucket(value: str) -> str:
    match = BUCKET.fullmatch(value)
    if match is None or any(part in (".", "..") for part in value.split("/")):
        raise ValueError("is not a bucket, for instance s3://mirror-cache or s3://backups/mirror")
    _check_installed("url")
    return value.rstrip("/")


def _split(value: str) -> SplitResult | None:
    """Return the parts of a URL with a host, and with neither query nor fragment; None for another text."""
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment)
    except ValueError:
        return None
    return parts if usable and re.search(r"[\s\\\x00-\x1f\x7f]", value) is None else None


def _check_endpoint(value: str) -> str:
    parts = _split(value)
    if parts is None or parts.scheme not in ("http", "https"):
        raise ValueError("is not the URL of an object store, for instance https://s3.lan:8333")
    if parts.username is not None or parts.password is not None:
        raise ValueError("has a user in it: set access_key and secret_key_file instead")
    return value.rstrip("/")


def _check_coordinator(value: str) -> str:
    if value == BUCKET_COORDINATOR:
        return value
    parts = _split(value)
    if parts is None or parts.scheme not in REDIS_SCHEMES or not re.fullmatch(r"(/[0-9]{0,5})?", parts.path):
        raise ValueError(
            'must be "bucket", or the URL of a Redis or Valkey, for instance redis://redis.lan/0'
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError("has a password in it: set coordinator_password_file instead")
    _check_installed("coordinator")
    return value


def _check_peers_listen(value: str | None) -> str | None:
    if value is not None and LISTEN.fullmatch(value) is None:
        raise ValueError("must be HOST:PORT, for instance 10.0.0.3:5002")
    return value


def _check_peers_url(value: str | None, valid: Mapping[str, Any]) -> str | None:
    listen: str | None = valid.get("peers_listen")
    if value is None:
        if listen is not None and listen.rpartition(":")[0] in ("", "0.0.0.0", "[::]"):  # noqa: S104
            raise ValueError("is needed: other mirrors cannot tell which address of this machine is meant")
        return value
    parts = _split(value)
    if parts is None or parts.scheme != "http" or parts.path.strip("/") or parts.port is None or "@" in value:
        raise ValueError("must be the URL of peers_listen, for instance http://10.0.0.3:5002")
    return value.rstrip("/")


def _read_secret(file_key: str) -> Beside:
    """Return a check that reads the secret from the file which the option `file_key` names."""

    def read(value: SecretStr | None, valid: Mapping[str, Any]) -> SecretStr | None:
        file = valid.get(file_key)
        if file is None:
            return value
        if value is not None:
            raise ValueError(f"is given, and {file_key} too: keep one of them")
        try:
            text = str(file.read_text()).strip()
        except UnicodeDecodeError:
            raise ValueError(f"{file_key} {file} is not text") from None
        if not text:
            raise ValueError(f"{file_key} {file} is empty")
        return SecretStr(text)

    return Beside(read)


# The certificates by file, which are read with the configuration: an event loop must not wait for a disk.
_certificates: dict[Path, bytes] = {}


def _read_certificates(file: Path) -> None:
    data = file.read_bytes()
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise ValueError(f"ca_file {file} has no certificate in the form of PEM")
    _certificates[file] = data


class SharedSettings(Settings, frozen=True, kw_only=True):
    """A tier that several mirrors share: what one has downloaded, the others get from there.

    Needs the extra `shared` of the package. docs/scaling.md says when it pays.
    """

    url: Annotated[
        str | None,
        After(lambda value: None if value is None else _check_bucket(value)),
        Doc(
            "Bucket of an S3-compatible object store, with an optional prefix. Without it nothing is shared.",
            examples=["s3://mirror-cache/office"],
        ),
    ] = None
    endpoint: Annotated[
        str | None,
        After(lambda value: None if value is None else _check_endpoint(value)),
        Doc("URL of the object store. Default: that of AWS for `region`.", examples=["https://s3.lan:8333"]),
    ] = None
    ca_file: Annotated[
        ReadableFile | None,
        Doc(
            "Certificates to trust for the object store besides those of the system, as PEM.",
            examples=["/etc/ssl/private-ca.crt"],
        ),
    ] = None
    region: Annotated[str, Doc("Region of the bucket.", examples=["eu-central-1"])] = "us-east-1"
    access_key: Annotated[
        str | None,
        Doc(
            "Access key of the object store. Without it, the environment (AWS_ACCESS_KEY_ID and the like) or "
            "the role of the machine or pod gives the credentials.",
            examples=["mirror"],
        ),
    ] = None
    secret_key_file: Annotated[
        CredentialFile | None,
        Doc(
            "File with the secret of `access_key`. A path may begin with $CREDENTIALS_DIRECTORY, the folder "
            "of systemd's LoadCredential=.",
            examples=["/etc/registry-mirror/s3.secret"],
        ),
    ] = None
    secret_key: Annotated[
        Password | None,
        _read_secret("secret_key_file"),
        Doc("The secret itself. Prefer `secret_key_file`.", examples=["secret"]),
    ] = None
    coordinator: Annotated[
        str,
        After(_check_coordinator),
        Doc(
            'Where the mirrors agree who downloads a blob: "bucket", objects in the bucket, or the URL of a '
            "Redis or Valkey, which answers a thousand times faster where many ask for the same blob.",
            examples=["redis://redis.lan:6379/0"],
        ),
    ] = BUCKET_COORDINATOR
    coordinator_username: Annotated[
        str | None, Doc("User at the coordinator. Default: the one without a name.", examples=["mirror"])
    ] = None
    coordinator_password_file: Annotated[
        CredentialFile | None,
        Doc("File with the password for the coordinator.", examples=["/etc/registry-mirror/redis.password"]),
    ] = None
    coordinator_password: Annotated[
        Password | None,
        _read_secret("coordinator_password_file"),
        Doc("The password itself. Prefer `coordinator_password_file`.", examples=["secret"]),
    ] = None
    peers_listen: Annotated[
        str | None,
        After(_check_peers_listen),
        Doc(
            "Address for other mirrors of the tier, as HOST:PORT: they get a blob from here while this "
            "mirror downloads it. Without it they download what is on its way too. Plain HTTP, for a network "
            "of your own; `peers_secret_file` keeps others out.",
            examples=["10.0.0.3:5002"],
        ),
    ] = None
    peers_url: Annotated[
        str | None,
        Beside(_check_peers_url),
        Doc(
            "URL by which other mirrors reach `peers_listen`. Default: that address itself.",
            examples=["http://10.0.0.3:5002"],
        ),
    ] = None
    peers_secret_file: Annotated[
        CredentialFile | None,
        Doc(
            "File with a secret that all mirrors of the tier have, and nobody else. With it they share what "
            "upstreams say of tags, links and referrers too, under a seal that is made of it.",
            examples=["/etc/registry-mirror/peers.secret"],
        ),
    ] = None
    peers_secret: Annotated[
        Password | None,
        _read_secret("peers_secret_file"),
        Doc("The secret itself. Prefer `peers_secret_file`.", examples=["a-long-random-secret"]),
    ] = None
    redirect: Annotated[
        Networks,
        Doc(
            "Networks of clients that reach the object store at `endpoint`: they are sent there for large "
            "blobs, by a URL that opens the one blob for ten minutes. A client that comes back is answered "
            "here. Limits of bandwidth do not hold at the store.",
            examples=[["10.0.0.0/8"]],
        ),
    ] = ()
    max_size: Annotated[
        Size,
        Doc(
            "Room for blobs in the bucket. Beyond this size one of the mirrors removes, every ten minutes, "
            "those that no mirror has used for the longest time.",
            examples=["500GiB"],
            zero="no limit",
        ),
    ] = 0
    max_age: Annotated[
        DurationOrForever,
        Doc("Time after their last use by any mirror at which blobs in the bucket go.", examples=["30d"]),
    ] = FOREVER
    timeout: Annotated[
        Timeout,
        Doc(
            "Longest time for which a download waits for an answer of the object store or the coordinator. "
            "Then the mirror goes on alone."
        ),
    ] = 2

    def __post_init__(self) -> None:
        if self.ca_file is not None:
            _read_certificates(self.ca_file)
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key_file belong together: give both or none")
        if self.peers_listen is not None and self.peers_secret is None:
            raise ValueError("peers_listen needs peers_secret_file: a secret that all mirrors have")
        if self.peers_secret is not None and len(self.peers_secret.get_secret_value()) < SHORTEST_SECRET:
            raise ValueError(
                f"peers_secret_file has less than {SHORTEST_SECRET} characters: openssl rand -hex 32"
            )

    @property
    def certificates(self) -> bytes | None:
        """The text of `ca_file`, as of when the configuration was read."""
        return None if self.ca_file is None else _certificates[self.ca_file]

    @property
    def bucket(self) -> Bucket | None:
        """The bucket; None where nothing is shared."""
        match = BUCKET.fullmatch(self.url or "")
        return None if match is None else Bucket(match[1], match[2].strip("/"))
