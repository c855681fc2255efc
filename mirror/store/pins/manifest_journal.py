"""What pinned manifests name, written down: `<cache folder>/kept`, a line of JSON for each manifest.

Which blobs a pin keeps is worked out from manifests. One that is found corrupt is set aside, and until it has
been fetched anew nobody could say what it named: its layers would be evicted, though they were promised to
stay. A manifest never changes what it names, so what is written here is never wrong, at most more than is
needed. And it is what stays when the books are lost, and nobody knows any more what tags pointed to.
"""

import json
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.store.metadata.closure import Named, Part
from mirror.util.durable import replace_file

# While this file is there, the books were lost, and not all that was pinned has been asked for again.
BOOKS_LOST = "books-lost"


def read_journal(path: Path) -> Named:
    """By manifest; what cannot be read is not known."""
    found: Named = {}
    with suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            with suppress(ValueError, TypeError, RegistryError):
                digest, *parts = json.loads(line)
                found[Digest.parse(digest)] = tuple(Part(Digest.parse(each[0]), *each[1:]) for each in parts)
    return found


def sizes_of(named: Named) -> dict[str, int]:
    """All these manifests and what they name, by digest as text; in bytes, 0 where nobody tells."""
    sizes = {str(digest): 0 for digest in named}
    sizes.update({str(part.digest): part.size for parts in named.values() for part in parts})
    return sizes


def write_journal(path: Path, named: Named) -> None:
    """OSError."""
    lines = (
        json.dumps([str(digest), *([str(part.digest), *astuple(part)[1:]] for part in parts)])
        for digest, parts in named.items()
    )
    replace_file(path, "".join(f"{line}\n" for line in lines))
