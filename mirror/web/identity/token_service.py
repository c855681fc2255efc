"""The token service: `/token`, where clients that were challenged exchange a login for a token.

All clients ask by GET, with Basic or without a login; containerd, BuildKit and dockerd's containerd store
POST a password. The scopes that they ask for are not read: a token says who its holder is, and the rules
decide at each request. There is no refresh token: a client that had one would have to POST it from then on.
"""

import asyncio
import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs

from aiohttp import web

from mirror.cache.results import Outcome
from mirror.oci.errors import Code, RegistryError
from mirror.store.secrets.key_file import load_key
from mirror.util.log import get_logger
from mirror.util.tracebacks import reason_of
from mirror.web import responses
from mirror.web.framing import PostedForm
from mirror.web.identity.challenge import TOKEN_PATH
from mirror.web.identity.credentials import (
    BASIC,
    BEARER,
    Authenticator,
    BasicLogin,
    Claim,
    Credentials,
    WrongCredentials,
)
from mirror.web.identity.identification import note
from mirror.web.identity.signer import PREFIX, TOKEN_SECONDS, TokenSigner
from mirror.web.request_log import RequestRecord

log = get_logger(__name__)

# Time for the body of a POST, in seconds.
FORM_SECONDS = 10.0

# Fields of a form, at most: clients send half as many.
MOST_FIELDS = 20

NO_STORE = {"Cache-Control": "no-store", "Content-Type": "application/json"}


class SignedTokens(Authenticator):
    """Authenticator of the tokens of this mirror, each of which stands for other credentials."""

    def __init__(self, signer: TokenSigner, key: Path, authenticators: Sequence[Authenticator]) -> None:
        """`key`: the file of the key. `authenticators` know the credentials that tokens stand for."""
        self._signer = signer
        self._key = key
        self._authenticators = authenticators

    async def start(self) -> None:
        """Use the key of all workers; one of this worker alone where the disk has none."""
        try:
            self._signer.key = await asyncio.to_thread(load_key, self._key)
        except OSError as error:
            log.error(
                "logins end with this worker: the key of tokens cannot be kept",
                file=str(self._key),
                reason=reason_of(error),
            )

    async def claim(self, shown: Credentials) -> Claim | None:
        if shown.scheme != BEARER or not shown.value.startswith(PREFIX):
            return None
        passed = self._signer.read(shown.value)
        claims = [await self._recall(each) for each in passed.handles]
        names = tuple(name for each in claims for name in each.names)
        restrictions = tuple(one for each in claims for one in each.restrictions)
        return Claim(
            names, min([passed.seconds, *(each.seconds for each in claims)]), restrictions=restrictions
        )

    async def _recall(self, handle: str) -> Claim:
        for each in self._authenticators:
            if (claim := await each.recall(handle)) is not None:
                return claim
        raise WrongCredentials("the login of this token is not valid any more: log in again")


class TokenService:
    """Handler of `/token`."""

    def __init__(self, signer: TokenSigner, authenticators: Sequence[Authenticator]) -> None:
        self._signer = signer
        self._authenticators = authenticators

    async def answer(self, record: RequestRecord) -> web.StreamResponse:
        """Return a token for the login that the request shows, for nobody without one.

        Raises RegistryError.
        """
        if record.request.method == "POST":
            note(record, await self._posted(record))
        elif record.request.method != "GET":
            message = "a token is asked for by GET, or by POST with a password"
            raise RegistryError(Code.UNSUPPORTED, message, status=405, headers={"Allow": "GET, POST"})
        token = self._signer.make(record.handles)
        record.outcome = Outcome.HIT
        body = {"token": token, "access_token": token, "expires_in": TOKEN_SECONDS}
        return responses.buffered(record, 200, NO_STORE, json.dumps(body).encode())

    async def _posted(self, record: RequestRecord) -> Claim:
        """Return the claim of a login in a form. Raises WrongCredentials."""
        fields = await _form(record.request)
        if fields.get("grant_type") != "password":  # 401: clients go on with GET, BuildKit not after a 400
            raise WrongCredentials("this token service takes grant_type=password, or GET")
        login = BasicLogin(fields.get("username", ""), fields.get("password", ""))
        value = b64encode(f"{login.user}:{login.password}".encode("utf-8", "surrogatepass")).decode()
        shown = Credentials(record.client, TOKEN_PATH, BASIC, value, login if login.user else None)
        for each in self._authenticators:
            if (claim := await each.claim(shown)) is not None:
                return claim
        raise WrongCredentials("this mirror does not know such a login")


async def _form(request: web.BaseRequest) -> dict[str, str]:
    body = request.content
    if not isinstance(body, PostedForm):
        return {}
    try:
        async with asyncio.timeout(FORM_SECONDS):
            data = await body.whole()
    except TimeoutError:
        raise RegistryError(Code.UNSUPPORTED, "the form did not come in time", status=408) from None
    try:
        fields = parse_qs(data.decode(), max_num_fields=MOST_FIELDS)
    except ValueError:  # no UTF-8, or too many fields
        return {}
    return {name: values[0] for name, values in fields.items()}
