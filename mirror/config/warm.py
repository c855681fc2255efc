"""The options of images that are fetched ahead, on a schedule."""

from typing import Annotated

from msgspec import Meta

from mirror.config.cron import Schedule
from mirror.config.types import Duration, Strings
from mirror.config.validation import After, Doc, Settings
from mirror.oci.platforms import parse_platforms


def _check_schedule(value: str) -> str:
    Schedule.parse(value)
    return value


def _check_platforms(value: tuple[str, ...]) -> tuple[str, ...]:
    parse_platforms(value)
    return value


class WarmSettings(Settings, frozen=True, kw_only=True):
    """Images that are fetched ahead on a schedule."""

    name: Annotated[str, Doc("Name of the list, in the log and in `registry-mirror warm --status`.")]
    images: Annotated[
        Strings,
        Doc(
            "Images, as for `registry-mirror warm`: patterns of tags and ranges of versions too.",
            examples=[["alpine:3.*", "quay.io/org/app:>=1.2 <2"]],
        ),
    ] = ()
    files: Annotated[
        Strings,
        Doc(
            "Files with lists of images, as for `registry-mirror warm --from`; read at each run.",
            examples=[["/etc/registry-mirror/images.txt"]],
        ),
    ] = ()
    env_files: Annotated[
        Strings,
        Doc(
            "Files with values of the variables in Compose files of `files`, such as `.env`. Values come "
            "from nowhere else.",
            examples=[["/etc/registry-mirror/compose.env"]],
        ),
    ] = ()
    platforms: Annotated[
        Strings,
        After(_check_platforms),
        Doc(
            'Platforms of images that have several, or "all". Default: that of the mirror\'s machine.',
            examples=[["linux/amd64", "linux/arm64"]],
        ),
    ] = ()
    referrers: Annotated[bool, Doc("Fetch signatures, attestations and SBOMs, too.")] = False
    pin: Annotated[bool, Doc("Pin the images.")] = False
    leave: Annotated[int, Meta(ge=0), Doc("Pulls of an upstream's rate limit that are left to clients.")] = 50
    schedule: Annotated[
        str,
        After(_check_schedule),
        Doc(
            "When to fetch: cron's five fields, and their time zone. One of all workers does it. A run that "
            "the mirror missed because it was down is made up once, within a day.",
            examples=["30 3 * * * Europe/Berlin"],
        ),
    ]
    jitter: Annotated[
        Duration,
        Doc(
            "Longest delay behind the schedule: another one at each run, so that mirrors do not ask at once."
        ),
    ] = 0
