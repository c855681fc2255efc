"""The options of `[[hosted.retention]]`: which tags of hosted repositories stay."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from mirror.config.types import Duration, Strings
from mirror.config.validation import Beside, Doc, Settings


def _check_conditions(value: float, valid: Mapping[str, Any]) -> float:
    if not (value or valid.get("keep_last") or valid.get("keep_for")):
        raise ValueError(
            "or keep_last or keep_for is needed: the rule would remove every tag that it matches"
        )
    return value


class RetentionSettings(Settings, frozen=True, kw_only=True):
    """Rules that remove old tags; of the rules that match a tag, the first one decides.

    A tag stays if one of the conditions of its rule holds, if no rule matches it, if it is immutable, or if
    it was pushed in the last hour.
    """

    repositories: Annotated[
        Strings,
        Doc(
            "Patterns of repositories, without the name of the registry. A star matches slashes too.",
            examples=[["app", "team/*"]],
        ),
    ] = ("*",)
    tags: Annotated[Strings, Doc("Patterns of tags.", examples=[["pr-*", "main-*"]])] = ("*",)
    keep_last: Annotated[
        int,
        Meta(ge=0, le=1_000_000),
        Doc("Number of tags that stay in each repository: those that were pushed last."),
    ] = 0
    keep_for: Annotated[
        Duration, Doc("Time for which a tag stays after its push.", examples=["30d"], zero="no time")
    ] = 0
    keep_pulled: Annotated[
        Duration,
        Beside(_check_conditions),
        Doc(
            "Time for which a tag stays after the last pull of its image, by whatever name.",
            examples=["90d"],
            zero="no time",
        ),
    ] = 0
