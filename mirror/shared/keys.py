"""Names of what the tier has, in the bucket and at the coordinator."""

import hashlib
import re

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository, Tag

# A blob's key below the prefix: algorithm, two digits, the whole digest.
_BLOB = re.compile(r"blobs/([a-z0-9]+)/[0-9a-f]{2}/([0-9a-f]+)")

BLOBS = "blobs"
LEASES = "leases"
PROBES = "probes"
RECORDS = "records"
MISSING = "missing"


def object_key(digest: Digest) -> str:
    """Return the key of a blob, below the prefix."""
    return f"{BLOBS}/{digest.algorithm}/{digest.encoded[:2]}/{digest.encoded}"


def parse_blob_key(key: str) -> Digest | None:
    """Return the digest of a blob's key; None for the key of something else."""
    match = _BLOB.fullmatch(key)
    if match is None:
        return None
    try:
        digest = Digest.parse(f"{match[1]}:{match[2]}")
    except RegistryError:
        return None
    return digest if object_key(digest) == key else None


def fill_key(digest: Digest) -> str:
    """Return the key of the lease for filling a blob."""
    return f"fill/{digest.algorithm}/{digest.encoded}"


def tag_key(repository: Repository, tag: Tag) -> str:
    """Return the key of what an upstream has said of a tag."""
    return _record_key("tag", f"{repository}:{tag.name}")


def link_key(repository: Repository, digest: Digest) -> str:
    """Return the key of what an upstream has said of a digest in a repository."""
    return _record_key("link", f"{repository}@{digest}")


def referrers_key(repository: Repository, digest: Digest) -> str:
    """Return the key of what an upstream has said of the referrers of a digest."""
    return _record_key("referrers", f"{repository}@{digest}")


def _record_key(kind: str, name: str) -> str:
    """Return a key that every engine takes, whatever the name is."""
    encoded = hashlib.sha256(name.encode()).hexdigest()
    return f"{kind}/{encoded[:2]}/{encoded}"
