"""The commands about pins: `pin`, `unpin`, `pins`."""

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import fail, opened, pattern
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import json_list, moment, size, table, tell

if TYPE_CHECKING:
    from mirror.config.schema import Config
    from mirror.oci.image_pattern import Pin
    from mirror.store.cache_dir import CacheDirectory
    from mirror.store.errors import PinTooLarge
    from mirror.store.pins.pin_file import Pinned

PIN_HELP = """Keep images, whatever the quota and their age.

\b
    registry-mirror pin alpine:3.20
    registry-mirror pin ghcr.io/org/app@sha256:...
    registry-mirror pin 'quay.io/org/*:v*' --platform linux/amd64 --platform linux/arm64

Names are as Docker has them: alpine is docker.io/library/alpine:latest. With a star and no tag every tag
is meant, and a star matches slashes too.

All that an image is made of stays, and its signatures, attestations and SBOMs with it; what matches and is
pulled later is pinned as it comes. A pin follows its tag: what the tag pointed to before it moved is not
pinned any more, unless by its digest. Pinning downloads nothing: pull the image through the mirror.

Pins of the configuration (cache.pins) are listed by `registry-mirror pins` too.
"""

UNPIN_HELP = """Keep images no longer than others; nothing is removed.

\b
    registry-mirror unpin alpine:3.20

PATTERN is that of the pin, as `registry-mirror pins` shows it or as it was given.
"""

Platforms = Annotated[
    list[str] | None,
    typer.Option(
        "--platform", metavar="OS/ARCH", help="Of several platforms keep only this; repeatable. Else all."
    ),
]
Pattern = Annotated[str, typer.Argument(metavar="PATTERN")]


def add_to(app: typer.Typer) -> None:
    app.command(cls=Command, help=PIN_HELP)(pin)
    app.command(cls=Command, help=UNPIN_HELP)(unpin)
    app.command(cls=Command)(pins)


def pin(
    reference: Annotated[str, typer.Argument(metavar="REF", help="An image, or a pattern of images.")],
    platform: Platforms = None,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
) -> None:
    from mirror.store.errors import PinTooLarge

    with opened(config, cache_dir) as (folder, settings):
        wanted = _pin(reference, platform or [], settings)
        try:
            kept = folder.pin(wanted)
        except PinTooLarge as error:
            fail(_too_large(wanted, error), 1)
        upstream = wanted.images.name.partition("/")[0]
        if "*" not in upstream and upstream not in settings.names().names.values():
            tell(f"Note: no upstream is called {upstream} in this configuration.")
        if not kept:
            typer.echo(f"pinned {wanted}: nothing of it is here yet, it is kept once it is pulled")
            return
        typer.echo(f"pinned {wanted}: {size(kept)}")
        missing = kept - _sizes(folder, wanted)[1]
        if missing:
            tell(f"{size(missing)} of it are not here: pull it through the mirror to have all of it.")


def unpin(reference: Pattern, config: ConfigFile = None, cache_dir: CacheDir = None) -> None:
    with opened(config, cache_dir) as (folder, settings):
        images = pattern(reference, settings)
        if folder.unpin(images):
            typer.echo(f"unpinned {images}")
        elif any(each.pin.images == images for each in folder.pins.all()):
            fail(f"{images} is pinned by the configuration: take it out of cache.pins, and restart", 1)
        else:
            fail(f"there is no pin {images}; those there are: registry-mirror pins", 1)


def pins(config: ConfigFile = None, cache_dir: CacheDir = None, as_json: AsJson = False) -> None:
    """List pins: what each keeps, and how much of that is here."""
    with opened(config, cache_dir) as (folder, _):
        listed = folder.pins.all()
        if as_json:
            json_list(_as_json(each, *_sizes(folder, each.pin)) for each in listed)
            return
        if not listed:
            tell("Nothing is pinned. To keep an image: registry-mirror pin alpine:3.20")
            return
        rows = (_as_row(each, *_sizes(folder, each.pin)) for each in listed)
        table(("PATTERN", "PLATFORMS", "SIZE", "HERE", "SINCE", "FROM"), rows, right=("SIZE", "HERE"))


def _pin(reference: str, platforms: list[str], config: "Config") -> "Pin":
    from mirror.oci.image_pattern import Pin

    try:
        return Pin.of(reference, platforms, config.names().names)
    except ValueError as error:
        fail(str(error), 2)


def _sizes(folder: "CacheDirectory", pin: "Pin") -> tuple[int, int]:
    """Bytes of all that it keeps, as far as that is known, and of what of it is here."""
    kept = folder.pins.closure([pin])
    return sum(kept.values()), sum(count for count, _ in folder.blobs.sizes_and_last_use(kept).values())


def _origin(pinned: "Pinned") -> str:
    from mirror.store.pins.pin_file import origin

    return origin(pinned)


def _as_json(pinned: "Pinned", kept: int, here: int) -> dict[str, object]:
    return {
        "pattern": str(pinned.pin.images),
        "platforms": list(pinned.pin.platforms),
        "size": kept,
        "here": here,
        "since": pinned.since,
        "from": _origin(pinned),
    }


def _as_row(pinned: "Pinned", kept: int, here: int) -> tuple[str, ...]:
    platforms = ", ".join(pinned.pin.platforms) or "all"
    since = moment(pinned.since)
    return (str(pinned.pin.images), platforms, size(kept), size(here), since, _origin(pinned))


def note_excess(config: "Config") -> None:
    """Say whether pins need more than there is room for: a mirror bears that, and `pin` would refuse it."""
    from mirror.store.cache_dir import CacheDirectory
    from mirror.store.errors import StoreError, translated

    with suppress(StoreError), translated("pins"):
        if not config.cache.pins or not (config.cache.dir / "books").is_dir():
            return
        with closing(CacheDirectory(config.cache.dir, config.cache)) as folder:
            commanded = (each.pin for each in folder.pins.all() if not each.configured)
            kept = sum(folder.pins.closure([*config.pins(), *commanded]).values())
            allowed = folder.size_limit()
        if kept > allowed:
            tell(
                f"Note: pins need {size(kept)}, and {size(allowed)} are allowed. The mirror keeps them all "
                "the same, and hardly anything else.\n"
                "Raise cache.max_size (or lower cache.min_free), or take something out of cache.pins."
            )


def _too_large(pin: "Pin", error: "PinTooLarge") -> str:
    return (
        f"{pin} is not pinned: it needs {size(error.asked)} besides the {size(error.used)} that pins use "
        f"already, and {size(error.allowed)} are allowed.\n"
        "Raise cache.max_size (or lower cache.min_free), or unpin something: registry-mirror pins"
    )
