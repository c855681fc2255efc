"""Limits of what is read of an archive, so that a hostile one costs bounded memory and time."""

from msgspec import Struct

from mirror.bundle import layout
from mirror.bundle.document import MOST_BYTES
from mirror.oci.manifest import MAX_MANIFEST_BYTES

MIB = 1024 * 1024


class Limits(Struct, frozen=True):
    """Limits of one archive. Sizes are in bytes.

    `entries`: files, folders and extra headers. `entry`: size of one file. `index`: size of index.json and
    manifest.json, which have 300 bytes for an image. `document`: size of registry-mirror.json. `manifests`:
    size of all manifests together, which are held in memory. `small`: size up to which a blob may be a
    manifest. `free`, `ratio`: a compressed archive may grow to `free` bytes, and beyond that to `ratio` times
    what was read of it.
    """

    entries: int = 300_000
    entry: int = 256 * 1024 * MIB
    index: int = layout.MOST_BYTES
    document: int = MOST_BYTES
    small: int = MAX_MANIFEST_BYTES
    manifests: int = 64 * MIB
    free: int = 1024 * MIB
    ratio: int = 250


DEFAULT = Limits()
