"""The media types of manifests that a client takes, as its Accept headers say (RFC 9110 12.5.1).

Most clients take every type that there is, or say so. A few little-used ones take single manifests only, and
cannot read the list that a tag of several platforms is. Distribution answers such a client, by tag, with the
manifest of linux/amd64 (`registry/handlers/manifests.go`, in both generations): the mirror does so too.

The other way round, a client may take types that the mirror does not ask upstreams for. Some registries
answer 404 for a manifest whose type is not asked for (Azure's, for artifact manifests).
"""

from collections.abc import Iterable

from msgspec import Struct

from mirror.oci.manifest import ACCEPT, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from mirror.oci.media_type import is_media_type

# Longest Accept that is read, in bytes, all its lines together. Beyond that, a client takes anything.
ACCEPT_BYTES = 4096

# Most further types that an upstream is asked for, and the length of the longest: the most seen in a client
# are two, of 51 characters. They are part of the keys of what is remembered about a tag.
MOST_OTHERS = 4
LONGEST_OTHER = 100

WILDCARDS = frozenset({"*/*", "application/*"})

LISTS = frozenset({DOCKER_LIST, OCI_INDEX})

# Types that are never asked for because a client names them: schema 1, to which registries convert, and types
# that say nothing.
_NOT_ASKED = frozenset(
    {
        *("application/vnd.docker.distribution.manifest.v1+json", "application/json"),
        *("application/vnd.docker.distribution.manifest.v1+prettyjws", "application/octet-stream"),
        *ACCEPT,
    }
)


class Accepted(Struct, frozen=True):
    """The types that a client names; `types` is empty if the client takes anything."""

    types: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, lines: Iterable[str]) -> "Accepted":
        """Parse all Accept headers of a request. Ignore parameters but `q=0`, and what is malformed."""
        text = ",".join(lines)
        if len(text) > ACCEPT_BYTES:
            return cls()
        types = {kind for kind in map(_named, text.split(",")) if kind}
        return cls() if types & WILDCARDS else cls(frozenset(types))

    def takes_single_only(self, media_type: str) -> bool:
        """Return whether a list of this type has to be resolved to the manifest of one platform.

        Docker's list: for a client that names Docker's manifest and not the list, as distribution does. OCI's
        index: for one that names OCI's manifest and no list at all. Other clients get a list unasked, which
        most of them can read.
        """
        if media_type == DOCKER_LIST:
            return DOCKER_MANIFEST in self.types and DOCKER_LIST not in self.types
        return media_type == OCI_INDEX and OCI_MANIFEST in self.types and not self.types & LISTS

    def others(self) -> tuple[str, ...]:
        """Return the named types that upstreams are not asked for anyway, in a fixed order."""
        short = (kind for kind in self.types if len(kind) <= LONGEST_OTHER)
        named = (kind for kind in short if is_media_type(kind) and kind not in _NOT_ASKED)
        return tuple(sorted(kind for kind in named if kind.startswith("application/")))[:MOST_OTHERS]


# The types that a client takes that sends no Accept.
ANYTHING = Accepted()


def _named(part: str) -> str:
    """Return the type of one element, "" if it is refused with `q=0`."""
    kind, *parameters = (each.strip().lower() for each in part.split(";"))
    refused = any(each.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for each in parameters)
    return "" if refused else kind
