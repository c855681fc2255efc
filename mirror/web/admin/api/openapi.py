"""The OpenAPI 3.1 document of the operations, from their types."""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from mirror import __version__
from mirror.web.admin.api.operation import Audience, ErrorAnswer, Operation
from mirror.web.admin.visitors import CHANGE_HEADER

REFERENCE = "#/components/schemas/{name}"

AUDIENCES = {
    Audience.ANYBODY: "For every visitor.",
    Audience.READERS: "What the rules hide from the visitor is left out.",
    Audience.OPERATORS: "For a token for the action admin; without rules for visitors at this machine too.",
    Audience.ADMINS: f"For a token that is good for the action admin, with the header {CHANGE_HEADER}.",
}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the document."""
    found = list(operations)
    types = [each.answer for each in found if each.answer is not None]
    types += [each.parameters for each in found if each.writes]
    schemas, components = msgspec.json.schema_components([*types, ErrorAnswer], ref_template=REFERENCE)
    by_type = dict(zip(map(_key, [*types, ErrorAnswer]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in found:
        paths.setdefault(each.path, {})[each.method.lower()] = _described(each, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "registry-mirror",
            "version": __version__,
            "description": "What the pages of a registry-mirror show and do.",
        },
        "security": [{}, {"token": []}, {"user": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "user": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _described(operation: Operation, by_type: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": AUDIENCES[operation.audience],
        "responses": {
            "200": {"description": "The answer", "content": _content(operation, by_type)},
            **{
                str(status): {
                    "description": "An error",
                    "content": {"application/json": {"schema": by_type[_key(ErrorAnswer)]}},
                }
                for status in _statuses(operation)
            },
        },
    }
    if operation.writes:
        schema = by_type[_key(operation.parameters)]
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        header = {"name": CHANGE_HEADER, "in": "header", "required": True, "schema": {"type": "string"}}
        return {**described, "requestBody": body, "parameters": [header]}
    return {**described, "parameters": list(_query(operation.parameters))}


def _statuses(operation: Operation) -> list[int]:
    """Return the statuses of errors."""
    statuses = {401, 403, 422, 503, *operation.errors}
    return sorted(statuses | ({413, 415} if operation.writes else {414}))


def _content(operation: Operation, by_type: dict[str, Any]) -> dict[str, Any]:
    if operation.answer is None:
        return {operation.media_type: {}}
    return {operation.media_type: {"schema": by_type[_key(operation.answer)]}}


def _query(parameters: type[Struct]) -> Iterable[dict[str, Any]]:
    schemas = msgspec.json.schema(parameters)
    struct = schemas["$defs"][parameters.__name__]
    for name, schema in struct["properties"].items():
        required = name in struct.get("required", ())
        yield {"name": name, "in": "query", "required": required, "schema": schema}


def _key(answer: object) -> str:
    return repr(answer)
