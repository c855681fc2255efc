"""The commands about files of images: `bundle ls`, `bundle verify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirror.cli.common import INTERRUPTED, fail
from mirror.cli.options import AsJson, Command
from mirror.cli.output import json_document, moment, say, table, tell
from mirror.util.units import size

if TYPE_CHECKING:
    from mirror.bundle.archives.archive import Archive

LS_HELP = """List the images of a file that `registry-mirror export` or another program wrote.

\b
    registry-mirror bundle ls lab.tar
    registry-mirror bundle ls lab.tar --json

The content is not verified; `registry-mirror bundle verify` does that.
"""

VERIFY_HELP = """Check every blob of a file against its digest.

\b
    registry-mirror bundle verify lab.tar

The exit status is 0 if all is well, and 1 if something is damaged or cut short. It needs no cache, and keeps
nothing.
"""

app = typer.Typer(help="Look at files of images, which `export` writes.", no_args_is_help=True)

File = Annotated[str, typer.Argument(metavar="FILE", help="A file, or the folder of an OCI layout.")]


def add_to(program: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("ls", cls=Command, help=LS_HELP)(list_bundle)
    app.command("verify", cls=Command, help=VERIFY_HELP)(verify_bundle)
    program.add_typer(app, name="bundle")


def list_bundle(file: File, as_json: AsJson = False) -> None:
    report, _ = _read(file, verify=False)
    if as_json:
        json_document(report)
        return
    rows = (
        (each["name"], ", ".join(each["absent"]) or "-", moment(each["confirmed"] or None), each["digest"])
        for each in report["images"]
    )
    table(("IMAGE", "LEFT OUT", "CONFIRMED", "DIGEST"), rows, optional=("DIGEST", "CONFIRMED"))
    of_parts = f", part {report['part']} of {report['parts']}" if report["parts"] > 1 else ""
    left_out = f", {report['left_out']} left out, which the receiver has" if report["left_out"] else ""
    say(f"{report['blobs']} blobs ({size(report['bytes'])}){of_parts}{left_out}")


def verify_bundle(file: File, as_json: AsJson = False) -> None:
    report, wrong = _read(file, verify=True)
    if as_json:
        json_document({**report, "damaged": wrong})
    else:
        for each in wrong:
            tell(each)
        blobs = f"{report['blobs']} blobs ({size(report['bytes'])})"
        say(f"{blobs}: {f'{len(wrong)} damaged' if wrong else 'nothing wrong'}")
    raise SystemExit(1 if wrong else 0)


def _read(file: str, *, verify: bool) -> tuple[dict[str, Any], list[str]]:
    """Read a file to its end; return a report, and what is damaged."""
    from mirror.bundle.archives.opening import open_archive
    from mirror.bundle.errors import BundleError, Damaged

    wrong: list[str] = []
    blobs, count = 0, 0
    try:
        with open_archive(Path(file).absolute()) as archive:
            for content in archive.contents():
                blobs, count = blobs + 1, count + content.size
                try:
                    if verify:
                        content.verify()
                except Damaged as error:
                    wrong.append(str(error))
            return _report(archive, blobs, count), wrong
    except BundleError as error:
        fail(str(error), 1)
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", 1)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _report(archive: "Archive", blobs: int, count: int) -> dict[str, Any]:
    document = archive.document
    images = [
        {"name": each.name, "digest": str(each.root.digest), "absent": [], "confirmed": 0}
        for each in archive.images
    ]
    if document is not None:
        images = [
            {
                "name": each.name,
                "digest": each.digest,
                "absent": [absent.platform or absent.digest for absent in each.absent],
                "confirmed": each.confirmed,
            }
            for each in document.images
        ]
    return {
        "kind": str(archive.kind),
        "images": images,
        "blobs": blobs,
        "bytes": count,
        "bundle": "" if document is None else document.bundle,
        "part": 1 if document is None else document.part,
        "parts": 1 if document is None else len(document.parts),
        "left_out": 0 if document is None or document.base is None else document.base.count,
        "exact": archive.exact,
        "notes": list(archive.notes),
    }
