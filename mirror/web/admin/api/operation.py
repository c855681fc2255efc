"""Operations of the API: who may call them, with which parameters, and what they answer."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from enum import Enum, auto
from typing import Any

from msgspec import Struct

from mirror.util.callbacks import ignore

# The media type of a stream of events.
EVENTS = "text/event-stream"


class ApiError(Exception):
    """An answer that is an error. `to_do`: what may help, "" for nothing."""

    def __init__(self, status: int, message: str, to_do: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.to_do = to_do


class ErrorAnswer(Struct, frozen=True):
    """An error. `to_do`: what may help, empty for nothing."""

    error: str
    to_do: str = ""


class Audience(Enum):
    """The visitors that may call an operation."""

    ANYBODY = auto()  # what it tells is about the caller alone, or everybody's
    READERS = auto()  # what the rules hide from the caller is left out
    OPERATORS = auto()  # those who may know what others do
    ADMINS = auto()


class NoParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class StreamAnswer(Struct, frozen=True):
    """A body that is not JSON. `headers`: further ones. `end`: called once, even if nothing was sent."""

    media_type: str
    parts: AsyncGenerator[bytes]
    headers: dict[str, str] = {}
    end: Callable[[], object] = ignore


class ApiChange(Struct, frozen=True):
    """The types of a change: `wanted`, of the JSON body, and `answer`."""

    wanted: type[Struct]
    answer: Any
    errors: tuple[int, ...] = (404, 409)


class Operation(Struct, frozen=True, kw_only=True):
    """An operation. `parameters`: of the query, or of the JSON body if the operation changes something.

    `answer`: a type that is sent as JSON; None for an operation that answers with a stream of `media_type`.
    """

    method: str
    path: str
    summary: str
    audience: Audience
    call: Callable[..., Awaitable[Any]]
    parameters: type[Struct] = NoParameters
    answer: Any = None
    media_type: str = "application/json"
    errors: tuple[int, ...] = ()

    @property
    def writes(self) -> bool:
        """Return whether the operation changes something."""
        return self.method != "GET"

    @property
    def name(self) -> str:
        """The name of the operation in the document."""
        words = self.path.strip("/").replace(".", "/").split("/")[2:]
        return "_".join([self.method.lower(), *words])


def change(
    method: str, name: str, summary: str, call: Callable[..., Awaitable[Any]], kind: ApiChange
) -> Operation:
    """Return an operation that changes something, for administrators."""
    return Operation(
        method=method,
        path=f"/api/v1/{name}",
        summary=summary,
        audience=Audience.ADMINS,
        call=call,
        parameters=kind.wanted,
        answer=kind.answer,
        errors=kind.errors,
    )
