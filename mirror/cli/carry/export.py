"""The commands of the sending side: `have` (which the receiver runs), and `export`."""

import sys
from collections.abc import Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, TypeVar

import typer

from mirror.cli.carry.missing import advice, show_missing
from mirror.cli.common import (
    IMPORTED_BY_CARRYING,
    INTERRUPTED,
    fail,
    import_before_becoming_owner,
    loaded,
    opened,
    pattern,
)
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import tell

if TYPE_CHECKING:
    from mirror.bundle.model import BundleContents
    from mirror.cli.progress import ProgressView
    from mirror.config.schema import Config
    from mirror.manage.carry.contents import Missing
    from mirror.manage.carry.export import OutputFile, OutputFolder
    from mirror.manage.carry.selection import Selection
    from mirror.manage.management import Management
    from mirror.oci.digest import Digest

T = TypeVar("T")

EXPORT_HELP = """Write images to a file, to carry them to a mirror without a network.

\b
    registry-mirror export -o lab.tar alpine:3.20 'quay.io/org/*:v*'
    registry-mirror export -o lab.tar --lacking have.txt alpine:3.20
    registry-mirror export -o /mnt/usb/lab.tar --split 4GiB alpine:3.20
    registry-mirror export -o - alpine:3.20 | ssh lab registry-mirror import -

The file is an OCI image layout in a tar, which podman, skopeo, oras and ctr read too. Indexes and manifests
are those of the registry, byte for byte, with signatures, attestations and SBOMs. Of an image for several
platforms those are exported that are here; --platform says which must be. What is missing is named, and
nothing is exported unless --allow-missing says so; --fetch downloads it first.

An interrupted export leaves FILE.part, and the same command goes on where it stopped. With --split there are
files FILE.1-of-N.tar and so on, each of which can be imported alone, in any order; --part makes one of them
again. --lacking reads the list that `registry-mirror have` writes at the receiver, --since an older bundle:
blobs that are in it are not carried again.
"""

HAVE_HELP = """Write the digests of all cached blobs, for `registry-mirror export --lacking`.

\b
    registry-mirror have > have.txt

A list of 100,000 blobs takes 2.1 MiB. It has digests alone: no names of images.
"""

Images = Annotated[list[str], typer.Argument(metavar="IMAGE", help="Images, or patterns of images.")]
Output = Annotated[
    str, typer.Option("--output", "-o", metavar="FILE", help='File to write; "-" for standard output.')
]
Platforms = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH",
        help='Export this platform, which must be here; repeatable; "all" for each that an index has. '
        "Default: those that are here.",
        show_default=False,
    ),
]
NoReferrers = Annotated[
    bool,
    typer.Option("--no-referrers", help="Leave out signatures, attestations and SBOMs.", show_default=False),
]
SplitSize = Annotated[
    str,
    typer.Option(
        "--split", metavar="SIZE", help="Write files smaller than this, such as 4GiB.", show_default=False
    ),
]
PartNumber = Annotated[
    int, typer.Option("--part", metavar="N", help="Write this part alone, from 1.", show_default=False)
]
Lacking = Annotated[
    str,
    typer.Option(
        "--lacking",
        metavar="FILE",
        help="List of the blobs that the receiver has, which are left out.",
        show_default=False,
    ),
]
Since = Annotated[
    str,
    typer.Option(
        "--since",
        metavar="TAR",
        help="An older bundle or archive: its blobs are left out.",
        show_default=False,
    ),
]
Fetch = Annotated[
    bool,
    typer.Option(
        "--fetch",
        help="Download first what is missing here; without --platform for this machine's own.",
        show_default=False,
    ),
]
AllowMissing = Annotated[
    bool,
    typer.Option("--allow-missing", help="Export what is here, and say what is not.", show_default=False),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("have", cls=Command, help=HAVE_HELP)(have)
    app.command("export", cls=Command, help=EXPORT_HELP)(export)


def have(config: ConfigFile = None, cache_dir: CacheDir = None) -> None:
    import_before_becoming_owner(IMPORTED_BY_CARRYING)
    with opened(config, cache_dir) as (management, _):
        for line in management.exports.have().now().lines():
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def export(
    images: Images,
    output: Output,
    platform: Platforms = None,
    no_referrers: NoReferrers = False,
    split: SplitSize = "",
    part: PartNumber = 0,
    lacking: Lacking = "",
    since: Since = "",
    fetch: Fetch = False,
    allow_missing: AllowMissing = False,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    from mirror.bundle.errors import BundleError
    from mirror.cli.carry.outputs import output_folder

    import_before_becoming_owner(IMPORTED_BY_CARRYING)
    limit = _limit(output, split, part)
    if fetch and output == "-":
        fail("--fetch writes its results to standard output: run registry-mirror warm before", 2)
    try:
        assumed = _receiver_blobs(lacking, since)
        place = _place(output)
        before = loaded(config, {"cache_dir": cache_dir}).config
        folder = output_folder(place.parent, before.cache.dir)
        if fetch:
            _fetch(images, platform or [], before, referrers=not no_referrers, as_json=as_json)
        with opened(config, cache_dir) as (management, settings):
            from mirror.manage.carry.selection import Selection

            selection = Selection(
                tuple(pattern(each, settings) for each in images),
                _platforms(platform or []),
                referrers=not no_referrers,
                assumed=assumed,
            )
            run = _Export(management, settings, folder, place.name, as_json=as_json and output != "-")
            contents = run.collect(selection, allowed=allow_missing)
            run.write(contents, limit, part, to_stdout=output == "-")
            if run.missing:
                raise SystemExit(1)
    except BundleError as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        tell("Interrupted. The same command goes on from there.")
        raise SystemExit(INTERRUPTED) from None


class _Export:
    """One run of `export`."""

    def __init__(
        self,
        management: "Management",
        settings: "Config",
        output: "OutputFolder",
        name: str,
        *,
        as_json: bool,
    ) -> None:
        self._management = management
        self._folder = management.folder
        self._output = output
        self._name = name
        self._as_json = as_json
        self.missing: tuple[Missing, ...] = ()
        self._folder.reader.trusts_unknown = not any(each.logins() for each in settings.upstreams)

    def collect(self, selection: "Selection", *, allowed: bool) -> "BundleContents":
        """Return what is to be exported; ends with 1 if something is missing and not `allowed`."""
        found = self._management.exports.collect(selection).now()
        self.missing = found.missing
        for each in found.missing:
            show_missing(each, as_json=self._as_json)
        if found.missing and not (allowed and found.contents.images):
            fail(advice(found.missing), 1)
        return found.contents

    def write(self, contents: "BundleContents", limit: int, part: int, *, to_stdout: bool) -> None:
        """Write the files, or one of them."""
        from mirror.cli.progress import shown
        from mirror.manage.carry.export import ExportError
        from mirror.manage.carry.export_run import ExportOptions, NoSuchPart
        from mirror.manage.carry.held import BlobGone
        from mirror.system.descriptors import raise_limit

        progress = _Progress()
        options = ExportOptions(self._name, limit, part, raise_limit(), progress.add)
        output = sys.stdout.buffer if to_stdout else self._output
        try:
            run = self._management.exports.begin(contents, output, options).now()
            with shown(len(run.files), as_json=self._as_json) as view:
                progress.view = None if to_stdout else view
                for each in self._management.exports.write(run):
                    progress.end(each.file, each.state)
                if not to_stdout:
                    view.done(**_facts(contents, run.files, self.missing))
        except NoSuchPart as error:
            fail(f"--part {part}: {error}", 2)
        except (BlobGone, ExportError) as error:
            fail(str(error), 1)
        except BrokenPipeError:
            raise
        except OSError as error:
            fail(_disk_error(error, self._output.path / self._name), 1)


class _Progress:
    """The progress of the files, one after another."""

    def __init__(self) -> None:
        self.view: ProgressView | None = None
        self._done = 0

    def add(self, file: "OutputFile", count: int) -> None:
        self._done += count
        self._show(file, "running")

    def end(self, file: "OutputFile", state: str) -> None:
        self._done = file.size if state == "done" else 0
        self._show(file, state)
        self._done = 0

    def _show(self, file: "OutputFile", state: str) -> None:
        from mirror.util.progress.amounts import ImageProgress, ProgressAmount

        if self.view is not None:
            amount = ProgressAmount(self._done, file.size)
            self.view.update(ImageProgress(file.name, amount, state=state))  # type: ignore[arg-type]


def _fetch(
    images: list[str], platforms: list[str], settings: "Config", *, referrers: bool, as_json: bool
) -> None:
    from mirror.cli.warm import fetch_images

    _platforms(platforms)
    fetch_images(images, platforms, settings, referrers=referrers, as_json=as_json)


def _limit(output: str, split: str, part: int) -> int:
    """Return the limit of a file's size, 0 for none; wrong usage ends the command with 2."""
    from mirror.config.types import parse_size

    if output == "-" and sys.stdout.isatty():
        fail("-o -: standard output is a terminal; redirect it to a file or a program", 2)
    if output == "-" and split and not part:
        fail("-o - writes one file: name one of the parts with --part", 2)
    if part and not split:
        fail("--part needs --split, with the size that the parts have", 2)
    try:
        return parse_size(split) if split else 0
    except ValueError:
        fail(f"--split: must be a size, for instance 4GiB, not {split!r}", 2)


def _place(output: str) -> Path:
    """Return the path to write to; the command ends with 2 if its folder is none."""
    place = Path(output).absolute()
    if output != "-" and not place.parent.is_dir():
        fail(f"{place.parent} is no folder: create it, or mount the disk", 2)
    if output != "-" and place.is_dir():
        fail(f"{place} is a folder: name a file in it, for instance {place / 'lab.tar'}", 2)
    # The file is renamed to its name when it is complete: /dev/null and /dev/stdout would be gone.
    if output != "-" and (place.is_symlink() or (place.exists() and not place.is_file())):
        fail(f"{place} is a device, a pipe or a link: name a file, or - for standard output", 2)
    return place


def _platforms(texts: list[str]) -> tuple[str, ...]:
    from mirror.oci.image_pattern import PLATFORM

    for each in texts:
        if each != "all" and PLATFORM.fullmatch(each) is None:
            fail(f"{each!r} is not a platform, for instance linux/amd64 or linux/arm/v7", 2)
    return tuple(dict.fromkeys(texts))


def _receiver_blobs(lacking: str, since: str) -> "Container[Digest]":
    """Return the blobs that the receiver has. Raises BundleError."""
    from mirror.bundle.have import HaveList, read_have
    from mirror.manage.carry.export import digests_in_archive

    found: list[Container[Digest]] = []
    if lacking:
        found.append(_read(lacking, read_have))
    if since:
        found.append(HaveList.of(_read(since, lambda file: digests_in_archive(file, Path(since)))))
    return _Union(found)


class _Union(Container["Digest"]):
    """The digests of any of several lists."""

    def __init__(self, lists: "list[Container[Digest]]") -> None:
        self._lists = lists

    def __contains__(self, digest: object) -> bool:
        return any(digest in each for each in self._lists)


def _read(name: str, read: "Callable[[BinaryIO], T]") -> T:
    try:
        with open(name, "rb") as file:
            return read(file)
    except OSError as error:
        fail(f"{name} cannot be read: {error.strerror}", 2)


def _facts(
    contents: "BundleContents", chosen: "list[OutputFile]", missing: "tuple[Missing, ...]"
) -> dict[str, object]:
    return {
        "files": [each.name for each in chosen],
        "bundle": chosen[0].plan.document.bundle,
        "blobs": len(contents.blobs),
        "left_out": len(contents.assumed),
        "missing": len(missing),
    }


def _disk_error(error: OSError, path: Path) -> str:
    from mirror.store.errors import reason_of

    return (
        f"cannot write {path}: {reason_of(error)}\nMend that, and repeat the command: it goes on from there"
    )
