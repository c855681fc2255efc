"""aiohttp's server from inside: what the mirror uses there, and aiohttp's documentation does not have.

A connection of the mirror is aiohttp's `RequestHandler`. Its task takes parsed requests from a queue, and
awaits a future while the queue is empty; a timer ends a connection that is idle. The mirror answers known
requests beside that task, bounds what is queued, and decides which request is the last. What this takes of
aiohttp has a name here, and no other module of the server uses a private name or an inner module of aiohttp.

Written against aiohttp 3.14; earlier versions have no bound of the queue. Each docstring says which name of
aiohttp stands behind it, and what no longer works without that name. The tests of this module use the
installed aiohttp, with its parser in C and with the one in Python: an upgrade that changes a name fails
there.
"""

import asyncio
import logging
from collections import deque
from typing import Any, Protocol, cast

from aiohttp import EMPTY_PAYLOAD, web, web_protocol
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import StreamWriter

# The head of a request: method, path, version, headers, should_close, upgrade and url. A named tuple from the
# parser in Python, and an object with the same attributes from the one in C.
RequestHead = RawRequestMessage

# The place in the queue of a request that could not be parsed, or is refused: `handle_error` answers it.
Refused = web_protocol._ErrInfo

Message = RequestHead | Refused


class RequestBody(Protocol):
    """The part of a request's body that aiohttp uses: behind the response it reads the body to its end."""

    def is_eof(self) -> bool:
        """Return whether nothing more comes; only then may the connection go on."""
        ...

    async def readany(self) -> bytes:
        """Return bytes to drop, called until `is_eof` for the `lingering_time` of the connection."""
        ...

    def set_exception(self, *_: Any) -> None:
        """Take the note that nothing may read the body any more."""
        ...


# The body of a request without one, by identity: how it is told that a request is nothing but a head.
NO_BODY = EMPTY_PAYLOAD


class AiohttpConnection(web.RequestHandler):
    """A client's connection. Subclasses override what aiohttp and the transport call.

    The transport calls `connection_made`, `data_received`, `pause_writing`, `resume_writing` and
    `connection_lost`. aiohttp calls `finish_response` with each response, and `handle_error` for each
    `Refused` and each exception of the handler. If aiohttp calls another method, bad requests get aiohttp's
    own pages, and a body that was read to its end closes its connection.
    """

    __slots__ = ()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the connection (`_loop`)."""
        return self._loop

    def _waits_for_request(self) -> bool:
        """Return whether the queue is empty and no request runs: the task awaits `_waiter`.

        Decides what the response cache may answer beside the task. Wrongly true, answers come in the wrong
        order; wrongly false, no answer comes from the cache and no idle connection makes room.
        """
        waiter = self._waiter
        return waiter is not None and not waiter.done()

    def _runs_request(self) -> bool:
        """Return whether a handler runs (`_current_request`): its end costs as much as a beginning."""
        return self._current_request is not None

    def _wake(self) -> None:
        """Have the task look at its queue, as aiohttp does after parsing; else a refusal waits in it."""
        if self._waits_for_request():
            cast(asyncio.Future[None], self._waiter).set_result(None)

    @property
    def _queue(self) -> deque[tuple[Message, RequestBody]]:
        """The requests that are parsed and not answered yet (`_messages`), the first one first.

        The connection's last request is decided here: later ones are removed, the last one is replaced.
        """
        return cast(deque[tuple[Message, RequestBody]], self._messages)

    @property
    def _queue_is_full(self) -> bool:
        """Return whether aiohttp parses no more for now (`_max_msg_queue_size`), and would drop what it gets.

        Its parser then keeps the rest of the bytes and parses them later: no head could be looked at between.
        """
        return len(self._messages) >= self._max_msg_queue_size

    def _keep_idle(self) -> None:
        """Begin the time again for which an idle connection is kept, as aiohttp does behind a response.

        The timer itself (`_keepalive_handle`) looks at `_next_keepalive_close_time` when it fires. Without
        it, a connection that has all its answers from the cache is closed as idle.
        """
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def _end_idle_at(self, limit: float) -> None:
        """Close the connection at `limit`, by the loop's clock, or at the nearer limit that it has.

        A request that comes before lifts the limit. Without it a slow head holds a connection for as long as
        an idle connection is kept.
        """
        if self._keepalive_handle is not None:
            limit = min(limit, self._next_keepalive_close_time)
            self._keepalive_handle.cancel()
        self._next_keepalive_close_time = limit
        self._keepalive_handle = self._loop.call_at(limit, self._process_keepalive)

    @property
    def _idle_limit(self) -> float:
        """The time at which the connection is closed as idle, by the loop's clock."""
        return self._next_keepalive_close_time

    @property
    def _idle_began(self) -> float:
        """The time since which the connection is idle, by the loop's clock; sooner behind `_end_idle_at`."""
        return self._next_keepalive_close_time - self._keepalive_timeout

    def is_kept(self) -> bool:
        """Return whether the connection works although its task is idle; for subclasses to override."""
        return False

    def _process_keepalive(self) -> None:
        """Close an idle connection: the timer calls this. Without it a slow download beside the task ends."""
        if self.is_kept():
            self._keep_idle()
        super()._process_keepalive()

    def _is_ending(self) -> bool:
        """Return whether no further request is answered (`_close`, `_force_close`): the server shuts down."""
        return self._close or self._force_close

    def _forget_rest(self) -> None:
        """Forget what came behind a request for another protocol (`_message_tail`), else parsed later."""
        self._message_tail = b""

    def _pause_socket(self) -> None:
        """Read no more from the client; not aiohttp's `pause_reading`, which also stops the parser."""
        self._pause_transport_reading()

    def _resume_socket(self) -> None:
        """Read from the client again, which aiohttp may have stopped for a body that nobody reads."""
        self._resume_transport_reading()

    def _renew_parser(self) -> None:
        """Parse what comes next from the beginning of a head (`_parser`).

        The old parser was not given the body and waits for it. Without this a client needs a connection for
        each push.
        """
        if self._parser is None:  # the connection is lost
            return
        parser_class: Any = type(self._parser)
        self._parser = parser_class(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )


class AiohttpServer(web.Server):
    """Maker of connections: called for each, then `connection_made` and `connection_lost` with each."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the server (`_loop`)."""
        return self._loop

    @property
    def connection_options(self) -> dict[str, Any]:
        """Keyword arguments that a connection takes besides its server: what the server was made with."""
        return {"loop": self._loop, **self._kwargs}


def refused(status: int, error: Exception, message: str) -> Refused:
    """Return what stands in the queue for a request that is answered by `handle_error` with these values."""
    return Refused(status, error, message)


def closing(head: RequestHead) -> RequestHead:
    """Return the head of a request that is answered with `Connection: close`, whatever it asks for."""
    return head._replace(should_close=True)


class _NoUnparsedRequests(logging.Filter):
    """Drops records about requests that aiohttp cannot parse: their tracebacks quote lines, and secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError)


def listener_logger() -> logging.Logger:
    """Return the logger for aiohttp's server of a listener beside that of the clients."""
    logger = logging.getLogger("aiohttp.server.listeners")
    if not logger.filters:
        logger.addFilter(_NoUnparsedRequests())
    return logger


def long_line(error: BaseException | None) -> str | None:
    """Return aiohttp's words about a line that is too long, which name the limit; None for another error."""
    return str(error.message) if isinstance(error, LineTooLong) else None


def body_writer(connection: web.RequestHandler) -> StreamWriter:
    """Return a writer of the body behind a head that the caller has written: it adds nothing of its own.

    Its `drain` waits while the client takes nothing. Without it a known blob takes the way of a new request.
    """
    return StreamWriter(connection, asyncio.get_running_loop())


def is_body_due(response: web.Response) -> bool:
    """Return whether `write_eof` of a prepared response is to send a body, and has not done so.

    None is due for HEAD, 204 and 304 (`_must_be_empty_body`). Wrongly true, the client takes the body for
    the next answer.
    """
    return not (response._must_be_empty_body or response._eof_sent)
