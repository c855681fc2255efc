"""One bundle as several tars, each smaller than a limit, each readable alone, in any order.

Each part has all documents and all manifests, and its share of the blobs. A blob larger than a part is cut
into pieces of one length (the last is shorter), each followed by its SHA-256.

Each part proves all others. The SHA-256 of a tar cannot be in the tar itself, nor in all of its siblings, and
would cost a first pass over 50 GB before a byte is written. But each blob is named by its own digest, so the
list of digests, sizes and pieces determines a part to the last byte. The document of each part has that list
for every part, with its SHA-256 (`BundlePart.sha256`), and the SHA-256 of all lists together
(`Document.bundle`). A lost part is made again alone: its list, and with it every byte, follows from the
contents without reading a blob of another part.
"""

from mirror.bundle.errors import BundleError
from mirror.bundle.model import BundleContents
from mirror.bundle.plan import BundlePlan, Planner, Slice
from mirror.bundle.tar_format import BLOCK, padding
from mirror.oci.digest import Digest

# Most parts of a bundle: 999 of 4 GiB are 4 TB.
MOST_PARTS = 999

# Blocks for the headers of one piece and of its sum, which a pax header (two blocks) may precede, and for the
# sum. A whole blob has three at most.
_OVERHEAD = 7 * BLOCK

# Least room for blobs in a part. Smaller parts would be headers for the most part.
_LEAST_ROOM = 64 * 1024


def split(contents: BundleContents, limit: int) -> list[BundlePlan]:
    """Return the plans of all parts, each smaller than `limit` bytes.

    Smaller, not equal: FAT32 holds files of 4 GiB less one byte. Raises BundleError for a limit that is too
    small, or that makes more than MOST_PARTS parts.
    """
    planner = Planner(contents)
    blobs = planner.blobs()
    room = limit - 1 - planner.plans([[]])[0].size
    while True:
        if room < _LEAST_ROOM:
            least = limit - room + _LEAST_ROOM
            raise BundleError(
                f"parts must be larger: documents and manifests alone need {least} bytes of each"
            )
        plans = planner.plans(_packed(blobs, room))
        excess = max(each.size for each in plans) - (limit - 1)
        if excess <= 0:
            return plans
        room -= excess


def _packed(blobs: list[tuple[Digest, int]], room: int) -> list[list[Slice]]:
    """Distribute blobs, the largest first, each to the first part with room; cut those larger than a part."""
    if sum(size for _, size in blobs) > MOST_PARTS * room // 2:
        raise BundleError(f"parts must be larger: there could be more than {MOST_PARTS}")
    packed: list[list[Slice]] = []
    free: list[int] = []
    for digest, size in sorted(blobs, key=lambda blob: (-blob[1], blob[0])):
        for piece in _pieces(digest, size, room):
            cost = _cost(piece)
            place = next((place for place, left in enumerate(free) if left >= cost), len(free))
            if place == len(free):
                packed.append([])
                free.append(room)
            packed[place].append(piece)
            free[place] -= cost
    return packed or [[]]


def _pieces(digest: Digest, size: int, room: int) -> list[Slice]:
    whole = Slice(digest, size, 0, size)
    if _cost(whole) <= room:
        return [whole]
    step = (room - _OVERHEAD) // BLOCK * BLOCK
    return [Slice(digest, size, offset, min(step, size - offset)) for offset in range(0, size, step)]


def _cost(piece: Slice) -> int:
    """Return an upper bound of the bytes that a slice takes in a part."""
    return piece.length + padding(piece.length) + (3 * BLOCK if piece.whole else _OVERHEAD)
