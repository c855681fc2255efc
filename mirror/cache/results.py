"""Result values of the cache; `web` turns them into HTTP. Blob content is in `cache.readers`."""

import math
from enum import StrEnum

from msgspec import Struct

from mirror.oci.digest import Digest


class Outcome(StrEnum):
    """The way a request was answered: the `outcome` label of the access log and of the metrics."""

    HIT = "hit"
    JOIN = "join"
    MISS = "miss"
    STALE = "stale"
    PASSED = "passed"
    PUSHED = "pushed"
    DELETED = "deleted"
    DENIED = "denied"
    CHALLENGED = "challenged"
    LIMITED = "limited"
    ERROR = "error"


# The `ttl` of content that is named by its digest: such content never changes.
FOREVER = math.inf


class Staleness(Struct, frozen=True):
    """Why an answer is stale, and its `age`: seconds since the upstream confirmed it, None if not known.

    `refused` is true if the upstream refuses this mirror, so that nothing else can be had from it either.
    `gone` is true if the upstream does not have the content any more, and it is kept here.
    """

    age: float | None
    reason: str
    refused: bool = False
    gone: bool = False


class ManifestInfo(Struct, frozen=True):
    """The answer to a HEAD on a manifest; `size` in bytes.

    `ttl`: seconds for which the same request has the same answer, 0 if not known. `staleness` is set when
    the outcome is STALE.
    """

    digest: Digest
    media_type: str
    size: int
    outcome: Outcome
    ttl: float = 0.0
    staleness: Staleness | None = None


class ManifestAnswer(Struct, frozen=True):
    """The answer to a GET on a manifest; `ttl` and `staleness` as in ManifestInfo."""

    data: bytes
    digest: Digest
    media_type: str
    outcome: Outcome
    ttl: float = 0.0
    staleness: Staleness | None = None


class Birth(Struct, frozen=True):
    """Moment from which the age of an image counts, and the time now, in seconds since the epoch.

    `by_author`: it is a date that the author of the image wrote, and not when it was first seen here.
    """

    since: float
    now: float
    by_author: bool = False


class BlobInfo(Struct, frozen=True):
    """The answer to a HEAD on a blob; `size` in bytes, None if not told, `staleness` as in ManifestInfo."""

    size: int | None
    outcome: Outcome
    staleness: Staleness | None = None


class TagsAnswer(Struct, frozen=True):
    """A page of tags: `data` as the upstream sent it, `next_query` the query of the next page, if any."""

    data: bytes
    next_query: str | None
    outcome: Outcome = Outcome.MISS
    staleness: Staleness | None = None


class ReferrersAnswer(Struct, frozen=True):
    """Referrers as an OCI index; `filtered` when an artifactType was applied.

    `next_query`: the query of the next page, if there is one.
    """

    data: bytes
    filtered: bool
    outcome: Outcome
    staleness: Staleness | None = None
    next_query: str | None = None


class CatalogAnswer(Struct, frozen=True):
    """A page of repository names; `more` when another page follows."""

    repositories: list[str]
    more: bool
