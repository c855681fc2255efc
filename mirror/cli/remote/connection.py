"""The connection of a command to the API of a running mirror, and the options about it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer
from msgspec import Struct

from mirror.cli.common import fail, loaded, pattern

if TYPE_CHECKING:
    from mirror.cli.remote.admin_client import AdminClient
    from mirror.config.schema import Config
    from mirror.oci.image_pattern import ImagePattern

# Rows of a page of a list, and the pages of one list that are read: ten million images.
PAGE_ROWS, MOST_PAGES = 200, 50_000

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask the pages of a running mirror, http://HOST:PORT or https://HOST:PORT, instead of opening "
        "its cache folder; a token is that of $REGISTRY_MIRROR_TOKEN, or of --token-file.",
        show_default=False,
    ),
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="With --server: file with a token for the action admin.",
        show_default=False,
    ),
]


class Remote(Struct, frozen=True):
    """A running mirror, and this machine's configuration, which has names and aliases of registries."""

    client: "AdminClient"
    config: "Config"

    def pattern(self, text: str, *, any_tag: bool = False) -> "ImagePattern":
        """Return the images that `text` means; the command ends with 2 if it can mean none."""
        return pattern(text, self.config, any_tag=any_tag)

    def image(self, text: str) -> str:
        """Return the full name of one image; the command ends with 2 for a pattern."""
        from mirror.oci.image_pattern import is_literal

        wanted = self.pattern(text)
        if not is_literal(wanted.name) or (wanted.digest is None and not is_literal(wanted.tag)):
            fail(f"{text!r} is a pattern: with --server, name one image, by its tag or digest", 2)
        return str(wanted)

    def get(self, path: str, **parameters: object) -> Any:
        """Return the value of an answer. Raises NoAnswer."""
        return self.client.get(f"{path}?{urlencode(parameters)}" if parameters else path)

    def images(self, wanted: "ImagePattern") -> Iterator[dict[str, Any]]:
        """Yield the rows of images that match. Raises NoAnswer."""
        from mirror.oci.reference import Repository

        words, after = _words(wanted.name), ""
        for _ in range(MOST_PAGES):
            page = self.get("images", search=words, after=after, limit=PAGE_ROWS)
            for row in page["rows"]:
                upstream, _, path = row["repository"].partition("/")
                if wanted.match(Repository(upstream, path), row["tag"], row["digest"]):
                    yield row
            after = page["next"]
            if not after:
                return


@contextmanager
def asking(server: str, token_file: str | None, config: str | None) -> Iterator[Remote]:
    """Yield a running mirror; the command ends with 1, and says why, if it does not answer or refuses."""
    from mirror.cli.remote.admin_client import AdminClient, NoAnswer, PagesPlace, token_of
    from mirror.config.loader import environment

    try:
        token = token_of(None if token_file is None else Path(token_file), environment())
        client = AdminClient(PagesPlace(server), token, seconds=60.0)
        try:
            yield Remote(client, loaded(config, {}).config)
        finally:
            client.close()
    except NoAnswer as error:
        fail(str(error), 1)
    except (KeyError, TypeError, AttributeError):
        fail(f"{server} answered in a form that this version does not know: use the mirror's version", 1)


def _words(name: str) -> str:
    """Return words that every name has which a pattern matches, for the search of the API."""
    return " ".join(re.split(r"[*?\[\]]+", name)[:4]) if "[" not in name else ""
