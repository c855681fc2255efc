"""The options of `[[cache.rules]]`: limits of single repositories."""

from collections.abc import Mapping
from typing import Annotated, Any

from mirror.config.types import Amount, DiskSpace, Size, format_size
from mirror.config.validation import After, Beside, Doc, Settings

# A limit of a rule for less would be about blobs that take no room worth a rule.
SMALLEST_LIMIT = 1024 * 1024


def _check_limit(value: Amount | None, valid: Mapping[str, Any]) -> Amount | None:
    if value is None and "max_blob" in valid and valid["max_blob"] is None:
        raise ValueError("or max_blob is needed: a rule without a limit does nothing")
    return value


def _check_max_blob(value: int | None) -> int | None:
    if value is not None and value < SMALLEST_LIMIT:
        raise ValueError(f"must be at least {format_size(SMALLEST_LIMIT)}, not {format_size(value)}")
    return value


def _check_max_share(value: Amount | None) -> Amount | None:
    if value is not None and not value.percent and value.bytes < SMALLEST_LIMIT:
        raise ValueError(f"must be at least {format_size(SMALLEST_LIMIT)}, or a percentage above 0")
    return value


class CacheRuleSettings(Settings, frozen=True, kw_only=True):
    """Limits for some repositories, each of which has them for itself. The first rule that matches counts."""

    repositories: Annotated[
        str,
        Doc(
            'Pattern of `<upstream>/<repository>`. A star matches slashes too, so "quay.io/*" is all of '
            "quay.io.",
            examples=["ghcr.io/models/*"],
        ),
    ]
    max_blob: Annotated[
        Size | None,
        After(_check_max_blob),
        Doc(
            "Size of the largest blob that is kept, at least 1MiB. A larger one is passed through to each "
            "client.",
            examples=["10GiB"],
        ),
    ] = None
    max_share: Annotated[
        DiskSpace | None,
        After(_check_max_share),
        Beside(_check_limit),
        Doc(
            "Room for the blobs of each such repository, in bytes, at least 1MiB, or as a share of what the "
            "cache may hold. Beyond it the repository's own least recently used blobs are evicted. A blob "
            "that several repositories have counts for each of them in equal parts, and is not evicted for "
            "one of them.",
            examples=["20%"],
        ),
    ] = None
