"""The commands about pins: `pin`, `unpin`, `pins`."""

import shlex
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import (
    become_owner,
    fail,
    image_name,
    import_before_becoming_owner,
    opened,
    pattern,
)
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import json_list, moment, say, table, tell
from mirror.cli.remote.connection import Server, TokenFile, asking
from mirror.system.addresses import reachable
from mirror.util.units import size

if TYPE_CHECKING:
    from mirror.config.schema import Config
    from mirror.manage.management import Management
    from mirror.oci.image_pattern import Pin
    from mirror.store.errors import PinTooLarge
    from mirror.store.pins.pin_file import PinEntry

PIN_HELP = """Keep images, whatever the quota and their age.

\b
    registry-mirror pin alpine:3.20
    registry-mirror pin ghcr.io/org/app@sha256:...
    registry-mirror pin 'quay.io/org/*:v*' --platform linux/amd64 --platform linux/arm64

Names are as Docker has them: alpine is docker.io/library/alpine:latest. A pattern with a star and without a
tag means every tag; a star matches slashes too. The name of a registry means all its images.

All parts of an image are kept, with its signatures, attestations and SBOMs. Images that match and are pulled
later are pinned as they come. A pin of a tag follows the tag: when the tag moves, the image that it pointed
to before is not pinned any more.

A pin downloads nothing, except with --fetch: pull the image through the mirror. `registry-mirror pins` lists
all pins, those of the configuration (cache.pins) too.
"""

UNPIN_HELP = """Remove a pin. The images stay, until eviction needs their room.

\b
    registry-mirror unpin alpine:3.20
    registry-mirror unpin 'quay.io/org/*:v*'

PATTERN is the pattern of a pin, as it was given or as `registry-mirror pins` shows it.
"""

PINS_HELP = """List the pins, and how much of each is here.

\b
    registry-mirror pins
    registry-mirror pins --json

SIZE is the size of all known parts of the pinned images. HERE is the size of the parts that are downloaded.
"""

# The architectures of Linux and Windows images, in Go's names, which platforms of images have.
ARCHITECTURES = (
    "386",
    "amd64",
    "arm",
    "arm64",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "ppc64",
    "ppc64le",
    "riscv64",
    "s390x",
    "wasm",
)

Platforms = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH",
        help="Keep only this platform of several, for instance linux/amd64; repeatable. Default: all.",
        show_default=False,
    ),
]
Fetch = Annotated[bool, typer.Option("--fetch", help="Fetch what is not here, as `warm` does.")]
Pattern = Annotated[str, typer.Argument(metavar="PATTERN", help="The pattern of a pin.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(cls=Command, help=PIN_HELP)(pin)
    app.command(cls=Command, help=UNPIN_HELP)(unpin)
    app.command(cls=Command, help=PINS_HELP)(pins)


def pin(
    reference: Annotated[str, typer.Argument(metavar="REF", help="An image, or a pattern of images.")],
    platform: Platforms = None,
    fetch: Fetch = False,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    if server is not None:
        from mirror.cli.remote import keeping

        with asking(server, token_file, config) as remote:
            keeping.pin(remote, reference, platform or [], fetch=fetch)
        return
    if fetch:
        import_before_becoming_owner(("mirror.cli.warm",))
    settings = _add_pin(reference, platform or [], config, cache_dir, fetch=fetch)
    if fetch:
        from mirror.cli.warm import fetch_pinned

        fetch_pinned(reference, platform or [], settings)


def _add_pin(
    reference: str, platform: list[str], config: str | None, cache_dir: str | None, *, fetch: bool
) -> "Config":
    """Add a pin, and say what of it is here, unless the rest is to be fetched now."""
    from mirror.store.errors import PinTooLarge

    with opened(config, cache_dir) as (management, settings):
        wanted = _pin(reference, platform, settings)
        try:
            kept = management.pins.add(wanted).now()
        except PinTooLarge as error:
            fail(_too_large(wanted, error), 1)
        upstream = wanted.images.name.partition("/")[0]
        if "*" not in upstream and upstream not in settings.names().names.values():
            tell(f"Note: no upstream is called {upstream} in this configuration.")
        for each in filter(None, map(_misspelt_architecture, wanted.platforms)):
            tell(f"Note: {each}")
        if not kept:
            say(f"pinned {wanted}: nothing of it is here yet, it is kept once it is pulled")
        else:
            say(f"pinned {wanted}: {size(kept)}")
        if kept and not fetch:
            _tell_missing(management, wanted, settings)
        return settings


def _misspelt_architecture(platform: str) -> str:
    """Return a sentence about an architecture that resembles one of ARCHITECTURES, or ""."""
    from difflib import get_close_matches

    architecture = platform.split("/")[1]
    close = get_close_matches(architecture, ARCHITECTURES, 1, 0.8)
    return "" if architecture in ARCHITECTURES or not close else f"{platform}: did you mean {close[0]}?"


def _tell_missing(management: "Management", pin: "Pin", settings: "Config") -> None:
    """Say what the pin keeps and is not here, and by which commands it comes."""
    images = list(management.images.matching(pin.images))
    platforms = [(image, name) for image in images for name in image.missing_platforms]
    if not platforms:
        kept, here = management.pins.sizes(pin).now()
        if kept > here:
            tell(f"{size(kept - here)} of it are not here: pull it through the mirror to have all of it.")
        return
    address = reachable(settings.server.listen[0])
    for image, name in platforms:
        tell(f"{name} is not here: docker pull --platform {name} {address}/{image.reference}")
    here_names = dict.fromkeys(name for image in images for name in image.platforms)
    if here_names:
        options = " ".join(f"--platform {name}" for name in here_names)
        tell(f"To pin only what is here: registry-mirror pin {shlex.quote(str(pin.images))} {options}")


def unpin(
    reference: Pattern,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    if server is not None:
        from mirror.cli.remote import keeping

        with asking(server, token_file, config) as remote:
            keeping.unpin(remote, reference)
        return
    with opened(config, cache_dir) as (management, settings):
        images = pattern(reference, settings)
        if management.pins.remove(images).now():
            say(f"unpinned {images}")
        elif any(each.pin.images == images for each in management.pins.all().now()):
            fail(f"{images} is pinned by the configuration: take it out of cache.pins, and restart", 1)
        else:
            fail(f"there is no pin {images}; the pins there are: registry-mirror pins", 1)


def pins(
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
) -> None:
    if server is not None:
        from mirror.cli.remote import keeping

        with asking(server, token_file, config) as remote:
            keeping.pins(remote, as_json=as_json)
        return
    with opened(config, cache_dir) as (management, _):
        listed = management.pins.all().now()
        if as_json:
            json_list(_as_json(each, *management.pins.sizes(each.pin).now()) for each in listed)
            return
        if not listed:
            tell("Nothing is pinned. To keep an image: registry-mirror pin alpine:3.20")
            return
        rows = (_as_row(each, *management.pins.sizes(each.pin).now()) for each in listed)
        head = ("PATTERN", "PLATFORMS", "SIZE", "HERE", "SINCE", "FROM")
        table(head, rows, right=("SIZE", "HERE"), optional=("SINCE", "FROM"))


def _pin(reference: str, platforms: list[str], config: "Config") -> "Pin":
    from mirror.oci.image_pattern import Pin

    try:
        return Pin.of(image_name(reference, config), platforms, config.names().names)
    except ValueError as error:
        fail(str(error), 2)


def _origin(pinned: "PinEntry") -> str:
    from mirror.store.pins.pin_file import origin

    return origin(pinned)


def _as_json(pinned: "PinEntry", kept: int, here: int) -> dict[str, object]:
    return {
        "pattern": str(pinned.pin.images),
        "platforms": list(pinned.pin.platforms),
        "size": kept,
        "here": here,
        "since": pinned.since,
        "from": _origin(pinned),
    }


def _as_row(pinned: "PinEntry", kept: int, here: int) -> tuple[str, ...]:
    platforms = ", ".join(pinned.pin.platforms) or "all"
    since = moment(pinned.since)
    return (str(pinned.pin.images), platforms, size(kept), size(here), since, _origin(pinned))


def note_excess(config: "Config") -> None:
    """Say so if pins need more room than there is: a mirror works nevertheless, but `pin` would refuse."""
    from mirror.store.errors import StoreError, translated
    from mirror.store.hosted.opened import open_cache

    become_owner(config.cache.dir, 1)
    with suppress(StoreError), translated("pins"):
        if not config.cache.pins or not (config.cache.dir / "books").is_dir():
            return
        with closing(open_cache(config.cache.dir, config.cache)) as folder:
            by_command = (each.pin for each in folder.pins.all() if not each.configured)
            kept = sum(folder.pins.closure([*config.pins(), *by_command]).values())
            allowed = folder.evictor.size_limit()
        if kept > allowed:
            tell(
                f"Note: pins need {size(kept)}, and {size(allowed)} are allowed. The mirror keeps them "
                "nevertheless, and hardly anything else.\n"
                "Raise cache.max_size (or lower cache.min_free), or take something out of cache.pins."
            )


def _too_large(pin: "Pin", error: "PinTooLarge") -> str:
    return (
        f"{pin} is not pinned: it needs {size(error.asked)} besides the {size(error.used)} that pins use "
        f"already, and {size(error.allowed)} are allowed.\n"
        "Raise cache.max_size (or lower cache.min_free), or unpin something: registry-mirror pins"
    )
