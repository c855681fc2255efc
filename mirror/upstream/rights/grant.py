"""The question whether an account may read a repository, put to its registry.

A token proves nothing: Docker Hub's token server gives one for each repository, and the registry refuses it.
So something of the repository is asked for, and the first of these that is granted decides:

1. HEAD of the manifest that a client wants, which is no pull at Docker Hub. Its refusal is not believed.
2. GET of the list of tags, at most one: for requests that name no manifest, for a manifest that is not there,
   and where the rate limit of the mirror's address is used up.
3. GET of the manifest, where HEADs and lists fail at a registry that anybody may pull from.
"""

import contextlib
from collections.abc import Iterator
from enum import Enum

from mirror.oci.manifest import ACCEPT
from mirror.upstream.accounts import Account
from mirror.upstream.errors import FINAL, Failure, UpstreamError
from mirror.upstream.http.request import OutgoingRequest
from mirror.upstream.http.transport import Response
from mirror.upstream.http_client import HTTPClient
from mirror.upstream.media_types import is_generic, is_page, media_type

REFUSALS = frozenset({401, 403, 451})
SUCCESSES = frozenset({200, 206})
TOO_MANY = 429

LIST = "/tags/list?n=1"

# Bytes of a body that are read, and what is in the beginning of a list of tags, and of a manifest.
BEGINNING = 64 * 1024
LIST_WORDS = (b'"tags"', b'"name"')
MANIFEST_WORDS = (b'"schemaVersion"', b'"layers"', b'"manifests"')


class Grant(Enum):
    """The registry's answer. ABSENT: it refuses nothing, and there was nothing to be granted.

    WRONG: user and password, or the token, are not right, whatever they are for.
    """

    GRANTED = "granted"
    REFUSED = "refused"
    WRONG = "wrong"
    ABSENT = "absent"


async def ask_for_grant(client: HTTPClient, account: Account, path: str, reference: str | None) -> Grant:
    """Return whether an account may read the repository. `reference`: of a manifest that a client wants.

    Raises UpstreamError if the registry gave no answer to that.
    """
    refused, failed = False, None
    for request in _requests(path, reference):
        if failed is not None and failed.failure is Failure.RATE_LIMITED and "/manifests/" in request.path:
            break  # a GET of a manifest would count
        try:
            grant = await _ask(client, account, request)
        except UpstreamError as error:
            if error.failure not in FINAL:
                # A HEAD that fails says nothing where GETs are answered.
                failed = error if request.method == "GET" or error.temporary else failed
                continue
            grant = Grant.REFUSED if error.failure is Failure.DENIED else Grant.ABSENT
        if grant is Grant.GRANTED:
            return grant
        refused = refused or (grant is Grant.REFUSED and request.method == "GET")
        if account.auth.refused:  # each further question would be one more wrong password
            return Grant.WRONG
    if refused:
        return Grant.REFUSED
    if failed is not None:
        raise failed
    return Grant.ABSENT


def _requests(path: str, reference: str | None) -> Iterator[OutgoingRequest]:
    accept = {"Accept": ", ".join(ACCEPT)}
    manifest = f"{path}/manifests/{reference}"
    if reference is not None:
        yield OutgoingRequest("HEAD", manifest, path, accept)
    yield OutgoingRequest("GET", f"{path}{LIST}", path, follow_see_other=False)
    if reference is not None:
        yield OutgoingRequest("GET", manifest, path, accept)


async def _ask(client: HTTPClient, account: Account, request: OutgoingRequest) -> Grant:
    """Return what the answer grants."""
    response = await client.send_as(request, account)
    try:
        if response.status in SUCCESSES:
            found = await _is_content(client, request, response)
            return Grant.GRANTED if found else Grant.ABSENT
    finally:
        response.close()
    if response.status in REFUSALS:
        return Grant.REFUSED
    if response.status == TOO_MANY or response.status >= 500:
        failure = Failure.RATE_LIMITED if response.status == TOO_MANY else Failure.SERVER_ERROR
        message = f"asked who may read {request.repository}, it answered {response.status}"
        raise UpstreamError(failure, message, status=response.status)
    return Grant.ABSENT


async def _is_content(client: HTTPClient, request: OutgoingRequest, response: Response) -> bool:
    """Return whether a success is the manifest or list that was asked for: gateways have pages for logins.

    Of a body no more than its beginning is read.
    """
    kind = media_type(response.headers.get("Content-Type"))
    if is_page(kind) or response.content_length == 0:
        return False
    if request.method == "HEAD":
        return not is_generic(kind) or "Docker-Content-Digest" in response.headers
    beginning = b""
    async with contextlib.aclosing(client.content(response).chunks()) as chunks:
        async for chunk in chunks:
            beginning += chunk
            if len(beginning) >= BEGINNING:
                break
    words = LIST_WORDS if request.path.endswith(LIST) else MANIFEST_WORDS
    return beginning.lstrip()[:1] == b"{" and any(word in beginning for word in words)
