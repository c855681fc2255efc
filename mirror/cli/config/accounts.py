"""Lines of `config check` about accounts: where each comes from, and whether its source has one."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from mirror.config.endpoints import EndpointSettings
    from mirror.config.loader import Loaded
    from mirror.credentials.credential import LoginSource


class AccountLine(Struct, frozen=True):
    """A line about one account; `doubtful` if it has no credentials, or others than were meant."""

    text: str
    doubtful: bool = False


def account_lines(read: "Loaded") -> list[AccountLine]:
    """Return a line for each account of each upstream and source. Programs that print passwords are run."""
    return asyncio.run(_lines(read))


async def _lines(read: "Loaded") -> list[AccountLine]:
    asked = []
    for name, key, endpoint in _endpoints(read):
        tables = {f"{key}.accounts.{number}": each for number, each in enumerate(endpoint.accounts, 1)}
        origins = {each.username: read.origins.get(f"{table}.password") for table, each in tables.items()}
        origins[endpoint.username or ""] = read.origins.get(f"{key}.password")
        asked += [_ask(name, origins.get(each.name), each) for each in endpoint.logins()]
    return list(await asyncio.gather(*asked))


def _endpoints(read: "Loaded") -> "Iterator[tuple[str, str, EndpointSettings]]":
    """Yield each endpoint with a name for people and its key in the configuration."""
    for upstream in read.config.upstreams:
        yield upstream.name, f"upstream.{upstream.name}", upstream
        for number, source in enumerate(upstream.sources, 1):
            yield f"{upstream.name} at {source.url}", f"upstream.{upstream.name}.sources.{number}", source


async def _ask(name: str, origin: str | None, source: "LoginSource") -> AccountLine:
    """Return the line about one account. `origin`: file or variable of a login that is written there."""
    from mirror.credentials.credential import CredentialError, place_of
    from mirror.credentials.sources import ConstantSource

    try:
        answer = await source.fetch()
    except CredentialError as error:
        return AccountLine(f"{name}: no credentials: {error}", doubtful=True)
    if answer.credential is None:
        return AccountLine(f"{name}: no account: {answer.note}", doubtful=True)
    written = origin is not None and isinstance(source, ConstantSource)
    where = origin if written else place_of(source, answer.credential)
    text = f"{name}: account {answer.credential.username or '(identity token)'}, from {where}"
    if answer.note:
        text += f". {answer.note}"
    return AccountLine(text, doubtful=bool(answer.note))
