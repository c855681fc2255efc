"""Dispatch of requests to operations: parameters in, JSON or a stream out."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from mirror.oci import json_text
from mirror.oci.errors import RegistryError
from mirror.store.errors import StoreError
from mirror.util.log import get_logger
from mirror.web.admin.api.operation import (
    EVENTS,
    ApiError,
    Audience,
    ErrorAnswer,
    Operation,
    StreamAnswer,
)
from mirror.web.admin.headers import API_HEADERS
from mirror.web.admin.visitors import CHANGE_HEADER, FrontDoor, PageVisitor
from mirror.web.connections.side_listener import send_events

log = get_logger(__name__)

PREFIX = "/api/v1/"

# Longest body of a request, in bytes, and the most values in it: a name, and some platforms.
MOST_BODY, MOST_VALUES = 16 * 1024, 256

# Time, in seconds, in which a body comes.
BODY_SECONDS = 10.0

# Longest query, in bytes.
MOST_QUERY = 4 * 1024

SIGN_IN = "show a token that is good for the action admin: registry-mirror token create NAME --action admin"


class Dispatcher:
    """The operations by path and method."""

    def __init__(self, operations: Sequence[Operation], door: FrontDoor) -> None:
        self.operations = operations
        self._door = door
        self._by_path: dict[str, dict[str, Operation]] = {}
        for each in operations:
            self._by_path.setdefault(each.path, {})[each.method] = each

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request for the API."""
        try:
            operation = self._operation(request)
            if operation.writes and self._door.is_forged(request):
                raise ApiError(403, f"a change needs the header {CHANGE_HEADER}, and no foreign origin")
            visitor = await self._door.admit(request)
            found = await self.call(operation, visitor, await _parameters(request, operation))
        except ApiError as error:
            return _error(error.status, error.message, error.to_do)
        except RegistryError as error:
            return _error(error.status, error.message, "")
        if isinstance(found, StreamAnswer):
            return await send(request, found)
        return _json(200, found)

    async def call(self, operation: Operation, visitor: PageVisitor, parameters: Struct) -> Any:
        """Return the answer of an operation to a visitor. Raises ApiError."""
        check_audience(operation.audience, visitor)
        try:
            return await operation.call(visitor, parameters)
        except StoreError as error:
            raise ApiError(
                503, f"the cache cannot be read: {error}", "see the troubles on the page Now"
            ) from error

    def _operation(self, request: web.BaseRequest) -> Operation:
        methods = self._by_path.get(request.path)
        if methods is None:
            raise ApiError(404, "there is no such operation", f"{PREFIX}openapi.json describes all of them")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in methods:
            raise ApiError(405, f"{request.method} is not for this: {', '.join(methods)}")
        return methods[method]


def check_audience(audience: Audience, visitor: PageVisitor) -> None:
    """Raise ApiError if an operation is not for this visitor."""
    if audience is Audience.OPERATORS and not visitor.is_operator:
        raise _refusal(visitor, "this is for operators of the mirror")
    if audience is Audience.ADMINS and not visitor.is_admin:
        raise _refusal(visitor, "this is for administrators of the mirror")


def _refusal(visitor: PageVisitor, reason: str) -> ApiError:
    return ApiError(403 if visitor.names else 401, reason, SIGN_IN)


async def _parameters(request: web.BaseRequest, operation: Operation) -> Struct:
    """Return the parameters of a request. Raises ApiError."""
    try:
        if not operation.writes:
            if len(request.query_string) > MOST_QUERY:
                raise ApiError(414, f"the query is longer than {MOST_QUERY} characters")
            return msgspec.convert(_query(request), operation.parameters, strict=False)
        if request.content_type != "application/json":
            raise ApiError(415, "the body must be application/json")
        values = json_text.parse(await _body(request), MOST_VALUES)
        return msgspec.convert(values, operation.parameters)
    except (msgspec.ValidationError, ValueError) as error:
        raise ApiError(422, str(error) or "the parameters cannot be read") from None


def _query(request: web.BaseRequest) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name in found:
            raise ApiError(422, f"the parameter {name:.40} is there twice")
        found[name] = value
    return found


async def _body(request: web.BaseRequest) -> bytes:
    data = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while part := await request.content.readany():
                data += part
                if len(data) > MOST_BODY:
                    raise ApiError(413, f"the body is longer than {MOST_BODY} bytes")
    except TimeoutError:
        raise ApiError(408, f"the body has not come in {BODY_SECONDS:.0f} seconds") from None
    return data


def _json(status: int, answer: object) -> web.Response:
    body = encoded(answer)
    return web.Response(status=status, body=body, content_type="application/json", headers=API_HEADERS)


def encoded(answer: object) -> bytes:
    """Return the JSON of an answer. Images may have halves of characters in their texts: UTF-8 has not."""
    if not isinstance(answer, dict):
        with suppress(UnicodeEncodeError):
            return msgspec.json.encode(answer)
    return json.dumps(msgspec.to_builtins(answer), ensure_ascii=False).encode("utf-8", "replace")


def _error(status: int, message: str, to_do: str) -> web.Response:
    found = _json(status, ErrorAnswer(message, to_do))
    if status == 401:
        # Programs and scripts; a browser is asked by /login alone, so that no dialogue opens by itself.
        found.headers["WWW-Authenticate"] = 'Bearer realm="registry-mirror"'
    if status == 405:
        found.headers["Allow"] = message.rpartition(": ")[2]
    return found


async def send(request: web.BaseRequest, stream: StreamAnswer) -> web.StreamResponse:
    """Send a stream; a client that leaves ends it, and so does one that does not read."""
    try:
        return await _send(request, stream)
    finally:
        stream.end()


async def _send(request: web.BaseRequest, stream: StreamAnswer) -> web.StreamResponse:
    headers = {**API_HEADERS, "Content-Type": stream.media_type, **stream.headers}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    if stream.media_type == EVENTS:
        send_events(request)
    async with aclosing(stream.parts) as parts:
        async for part in parts:
            await response.write(part)
            if stream.media_type == EVENTS:
                await request.writer.drain()  # no further event before this one has left
    await response.write_eof()
    return response
