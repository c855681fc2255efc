"""The journal of pinned manifests and their children: `<cache folder>/kept`, a line of JSON each.

Pinned blobs are found through manifests. If a pinned manifest is quarantined as corrupt, its children are
unknown until it is fetched again; without the journal an eviction would remove its layers, although they are
pinned. A manifest never changes what it names, so the journal is never wrong, at most longer than needed. The
journal also outlives the loss of the index, when nothing tells any more what tags pointed to.
"""

import json
from contextlib import suppress
from pathlib import Path

from msgspec.structs import astuple

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.store.metadata.closure import Children, Part
from mirror.util.durable import replace_file

# The mark of a lost index: exists until every pinned manifest of the journal was pulled again.
BOOKS_LOST = "books-lost"


def read_journal(path: Path) -> Children:
    """Return the children of each manifest; lines that cannot be read are skipped."""
    journal: Children = {}
    with suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            with suppress(ValueError, TypeError, RegistryError):
                digest, *parts = json.loads(line)
                children = tuple(Part(Digest.parse(each[0]), *each[1:]) for each in parts)
                journal[Digest.parse(digest)] = children
    return journal


def sizes_of(children: Children) -> dict[str, int]:
    """Return sizes in bytes of these manifests and their children, by digest as text; 0 if unknown."""
    sizes = {str(digest): 0 for digest in children}
    sizes.update({str(part.digest): part.size for parts in children.values() for part in parts})
    return sizes


def write_journal(path: Path, children: Children) -> None:
    """Replace the journal. OSError."""
    lines = (
        json.dumps([str(digest), *([str(part.digest), *astuple(part)[1:]] for part in parts)])
        for digest, parts in children.items()
    )
    replace_file(path, "".join(f"{line}\n" for line in lines))
