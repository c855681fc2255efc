"""The command about access rules: `access test`."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirror.cli.common import fail, loaded, opened_folder, pattern
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import json_document, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mirror.access.identity import Identity
    from mirror.access.rules import Action, Decision
    from mirror.access.tokens import TokenEntry
    from mirror.config.schema import Config
    from mirror.oci.reference import Repository

TEST_HELP = """Say whether a client may do something, and which rule decides.

\b
    registry-mirror access test 10.1.2.3 pull quay.io/org/app:1
    registry-mirror access test alice 10.1.2.3 pull quay.io/org/app:1
    registry-mirror access test cert:build1.lan group:ci 10.1.2.3 pull alpine
    registry-mirror access test 10.1.2.3 pull quay.io/org/app@sha256:...
    registry-mirror access test fd00::7 list alpine
    registry-mirror access test 10.1.2.3 pull alpine:3.20 --age 2d
    registry-mirror access test --token ci-runner 10.1.2.3 pull alpine

In front of the address is what the client has proven to be; a name alone is a user. Groups are added.
--token adds the principal of a token of the cache folder, and what the token itself restricts: its term, its
repositories, its actions. For token:NAME as an identity the rules alone are judged.
Rules with min_age decide by --age; without it they are judged as for a blob, which has none.
The rules are the [[rule]] tables of the configuration, and the default is access.default. No mirror is asked.
A client that no rule names for the repository gets what is public there, and nothing that an account is
needed for (`private` of the upstream). The exit status is 0 for "allowed" and 1 for "denied".
"""

# The head of a rule in the configuration file.
HEAD = re.compile(r"^[ \t]*\[\[[ \t]*rule[ \t]*\]\]", re.MULTILINE)

Client = Annotated[
    list[str],
    typer.Argument(metavar="[IDENTITY]... ADDRESS", help="What a client has proven to be, and its address."),
]
ActionName = Annotated[str, typer.Argument(metavar="ACTION", help="pull, list, push or delete.")]
Age = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Age of the image, for rules with min_age.", show_default=False),
]
Token = Annotated[
    str | None,
    typer.Option("--token", metavar="NAME", help="A token that the client shows.", show_default=False),
]
Image = Annotated[str, typer.Argument(metavar="IMAGE", help="An image, or a repository.")]

app = typer.Typer(help="Try the access rules.", no_args_is_help=True, rich_markup_mode=None)


def add_to(program: typer.Typer) -> None:
    """Add the commands of this module."""
    program.add_typer(app, name="access")


@app.callback()
def _top() -> None:
    pass


@app.command("test", cls=Command, help=TEST_HELP)
def access_test(
    client: Client,
    action: ActionName,
    image: Image,
    age: Age = None,
    token: Token = None,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    read = loaded(config, {"cache_dir": cache_dir}).config
    identity = _identity(client)
    shown = None if token is None else _token(token, read)
    if shown is not None:
        identity = identity.also([shown.principal]).within(shown.restrictions)
    identity = identity.also(read.client_groups().of(identity.names))
    wanted, literal = _action(action), pattern(image, read)
    repository, tag = _repository(image, literal.name), None if literal.digest else literal.tag
    policy = read.policy()
    decision = _token_refusal(identity, shown, wanted, repository) or policy.decide(
        policy.scope(identity), wanted, repository, tag, _age(age)
    )
    word = "allowed" if decision.allowed else "denied"
    private = any(each.keeps_private for each in read.upstreams if each.name == repository.upstream)
    only_public = private and not policy.names(identity, wanted, repository, tag)
    line = _line(config, decision)
    if as_json:
        rule = decision.rule
        json_document(
            {
                "decision": word,
                "rule": None if rule is None else rule.number,
                "name": None if rule is None else rule.name or None,
                "line": line,
                "limited": decision.limited or None,
                "only_public": decision.allowed and only_public,
            }
        )
    else:
        where = "" if line is None else f", line {line} of the configuration"
        say(f"{word} by {decision.reason}{where}")
        if decision.allowed and only_public:
            say(f"but only if it is public at {repository.upstream}: no rule names this client for it")
    raise typer.Exit(0 if decision.allowed else 1)


def _identity(words: "Sequence[str]") -> "Identity":
    """Return the client of the words in front of the action: principals, and an address at the end."""
    from mirror.access.identity import KINDS, Identity
    from mirror.access.policy import parse_address

    *names, address = words
    if parse_address(address) is None:
        fail(f"{address!r} is not an address, for instance 10.1.2.3 or fd00::7", 2)
    principals = [
        each if each.partition(":")[0] in KINDS and ":" in each else f"user:{each}" for each in names
    ]
    return Identity(address).also(principals)


def _token(name: str, config: "Config") -> "TokenEntry":
    """Return a token of the cache folder by its name; the command ends with 1 if there is none."""
    with opened_folder(config) as management:
        listed = management.tokens.all().now()
    found = next((each.entry for each in listed if each.entry.name == name), None)
    if found is None:
        fail(f"there is no token {name!r}; the tokens there are: registry-mirror token ls", 1)
    return found


def _token_refusal(
    identity: "Identity", token: "TokenEntry | None", action: "Action", repository: "Repository"
) -> "Decision | None":
    """Return the refusal by what a token itself restricts; None if the rules decide."""
    from mirror.access.rules import Decision

    if token is not None and token.has_expired(time.time()):
        return Decision(allowed=False, limited=f"{token.principal}: it has expired")
    restriction = identity.forbidden_by(action, repository)
    return None if restriction is None else Decision(allowed=False, limited=restriction.owner)


def _age(text: str | None) -> float | None:
    """Return the seconds of an age; None for a request about no single image."""
    from mirror.config.types import Duration
    from mirror.config.validation import convert

    try:
        return None if text is None else float(convert(text, Duration))
    except ValueError as error:
        fail(f"--age {error}", 2)


def _action(text: str) -> "Action":
    from mirror.access.rules import Action

    try:
        return Action(text)
    except ValueError:
        fail(f"{text!r} is no action: there are {', '.join(Action)}", 2)


def _repository(image: str, name: str) -> "Repository":
    """Return the repository of a pattern that has no wildcard."""
    from mirror.oci.image_pattern import is_literal
    from mirror.oci.reference import Repository

    upstream, _, path = name.partition("/")
    if not path or not is_literal(name):
        fail(f"{image!r} is a pattern: name one image", 2)
    return Repository(upstream, path)


def _line(config: str | None, decision: "Decision") -> int | None:
    """Return the line at which the rule begins in the configuration file; None if that cannot be told."""
    from mirror.config.loader import config_file, environment

    file = config_file(config, environment())
    if file is None or decision.rule is None:
        return None
    text = Path(file).read_text(encoding="utf-8")
    heads = [match.start() for match in HEAD.finditer(text)]
    if len(heads) < decision.rule.number:
        return None
    return text.count("\n", 0, heads[decision.rule.number - 1]) + 1
