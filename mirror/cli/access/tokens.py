"""The commands about tokens of clients: `token create`, `token ls`, `token revoke`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import fail, opened
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import json_document, json_list, moment, say, table, tell

if TYPE_CHECKING:
    from mirror.access.rules import Action
    from mirror.manage.tokens import WantedToken
    from mirror.store.tokens.token_store import ListedToken

CREATE_HELP = """Create a token for a client, and print its secret, this once.

\b
    registry-mirror token create ci-runner --expires 90d
    registry-mirror token create office-docker --repository 'docker.io/library/*' --action pull
    registry-mirror token create me --action admin

Rules of the configuration know the bearer as token:NAME (identities = ["token:ci-*"]). A client shows the
secret in one of these ways:

\b
    as the password of any user: docker login, podman login (access.login_hosts)
    in a header:    Authorization: Bearer rmt_...
    in the path:    "registry-mirrors": ["http://mirror.lan:5000/t/rmt_.../"], for dockerd 25 and later

A running mirror takes the token up at once. Only a hash of the secret is stored.
"""

LS_HELP = """List the tokens, and when each was used last. Secrets are not shown: they are not stored.

\b
    registry-mirror token ls
    registry-mirror token ls --json

USED is exact to five minutes or so.
"""

REVOKE_HELP = """Revoke a token: its next request is refused, by all workers.

\b
    registry-mirror token revoke ci-runner

A response that is being sent is sent to its end.
"""

TokenName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the token: letters, digits, '.', '_' and '-'."),
]
Expires = Annotated[
    str,
    typer.Option(
        "--expires", metavar="TIME", help='Life of the token, for instance 12h or 90d, or "forever".'
    ),
]
Repositories = Annotated[
    list[str] | None,
    typer.Option(
        "--repository",
        metavar="PATTERN",
        help="Pattern of <upstream>/<repository> that the token is good for, beyond the rules; repeatable. "
        "Default: all.",
        show_default=False,
    ),
]
Actions = Annotated[
    list[str] | None,
    typer.Option(
        "--action",
        metavar="ACTION",
        help="What the token is good for, beyond the rules: pull, list, or admin (the pages); repeatable. "
        "Default: pull and list.",
        show_default=False,
    ),
]

app = typer.Typer(
    help="Create, list and revoke tokens, by which clients identify themselves.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(program: typer.Typer) -> None:
    """Add the group of commands."""
    program.add_typer(app, name="token")


@app.command("create", cls=Command, help=CREATE_HELP)
def token_create(
    name: TokenName,
    expires: Expires = "forever",
    repository: Repositories = None,
    action: Actions = None,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    from mirror.store.tokens.token_store import TokenExists

    wanted = _token_of_arguments(name, expires, repository or [], action or [])
    with opened(config, cache_dir) as (management, _):
        try:
            secret, entry = management.tokens.create(wanted).now()
        except TokenExists:
            fail(f"there is a token {name} already: revoke it first, or choose another name", 1)
    if as_json:
        document = {"name": name, "principal": entry.principal, "secret": secret}
        json_document({**document, "created": entry.created, "expires": entry.expires})
        return
    say(secret)
    until = "" if entry.expires is None else f", good until {_day_and_time(entry.expires)}"
    tell(f"token {name} created{until}: rules know its bearer as {entry.principal}.")
    tell("The secret is not shown again.")


@app.command("ls", cls=Command, help=LS_HELP)
def token_ls(config: ConfigFile = None, cache_dir: CacheDir = None, as_json: AsJson = False) -> None:
    with opened(config, cache_dir) as (management, _):
        listed = management.tokens.all().now()
    if as_json:
        json_list(map(_as_json, listed))
    elif not listed:
        tell("There are no tokens. To create one: registry-mirror token create NAME")
    else:
        head = ("NAME", "EXPIRES", "USED", "CREATED", "REPOSITORIES", "ACTIONS")
        table(head, map(_as_row, listed), optional=("CREATED", "ACTIONS"))


@app.command("revoke", cls=Command, help=REVOKE_HELP)
def token_revoke(name: TokenName, config: ConfigFile = None, cache_dir: CacheDir = None) -> None:
    with opened(config, cache_dir) as (management, _):
        if not management.tokens.revoke(name).now():
            fail(f"there is no token {name!r}; the tokens there are: registry-mirror token ls", 1)
    say(f"revoked {name}")


def _token_of_arguments(
    name: str, expires: str, repositories: list[str], actions: list[str]
) -> "WantedToken":
    """Return the token that the arguments ask for; the command ends with 2 if they are wrong."""
    from mirror.access.tokens import NAME
    from mirror.manage.tokens import WantedToken

    if NAME.fullmatch(name) is None:
        fail(
            f"{name!r} is no name of a token: up to 64 letters, digits, '.', '_' and '-', the first one a "
            "letter or a digit",
            2,
        )
    empty = next((each for each in repositories if "/" not in each and "*" not in each), None)
    if empty is not None:
        fail(
            f"--repository {empty!r} matches nothing: write <upstream>/<repository>, as docker.io/library/*",
            2,
        )
    return WantedToken(name, _life(expires), tuple(repositories), tuple(map(_action, actions)))


def _life(text: str) -> float | None:
    """Return the life of a token in seconds, None for no end."""
    from mirror.config.types import FOREVER, DurationOrForever
    from mirror.config.validation import convert

    try:
        seconds: float = convert(text, DurationOrForever)
    except ValueError as error:
        fail(f"--expires {error}", 2)
    if seconds <= 0:
        fail("--expires must be more than 0, for instance 90d", 2)
    return None if seconds == FOREVER else seconds


def _action(text: str) -> "Action":
    from mirror.access.rules import Action

    try:
        return Action(text)
    except ValueError:
        fail(f"--action {text!r} is no action: there are {', '.join(Action)}", 2)


def _as_json(listed: "ListedToken") -> dict[str, object]:
    entry = listed.entry
    return {
        "name": entry.name,
        "principal": entry.principal,
        "created": entry.created,
        "expires": entry.expires,
        "expired": entry.has_expired(time.time()),
        "used": listed.used,
        "repositories": list(entry.repositories),
        "actions": list(entry.actions),
    }


def _as_row(listed: "ListedToken") -> tuple[str, ...]:
    entry = listed.entry
    expires = "never" if entry.expires is None else _day_and_time(entry.expires)
    if entry.has_expired(time.time()):
        expires = f"{expires} (expired)"
    repositories, actions = ", ".join(entry.repositories) or "all", ", ".join(entry.actions) or "all"
    return entry.name, expires, moment(listed.used), moment(entry.created), repositories, actions


def _day_and_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
