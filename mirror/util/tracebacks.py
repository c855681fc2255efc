"""The words of an error, and exceptions that outlive the block that caught them: in a future, a cache.

A traceback refers to frames, and a frame to its local variables: megabytes of a body, say. Where a frame also
refers to the exception, directly or through a future, only the garbage collector frees them, and it runs
seldom (`mirror.server.worker_process`).
"""

from types import TracebackType
from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def without_frames(error: E) -> E:
    """Drop the tracebacks of `error` and of the exceptions behind it; its own lines stay, as a note.

    For an exception that is kept. The exceptions behind one raised `from None` are dropped with theirs.
    """
    if error.__traceback__ is not None:
        error.add_note(f"raised at {' > '.join(_lines(error.__traceback__))}")
    if error.__suppress_context__ and error.__cause__ is None:
        error.__context__ = None
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        seen.add(id(each))
        each.__traceback__ = None
        behind = (each.__cause__, each.__context__)
        pending += [one for one in behind if one is not None and id(one) not in seen]
    return error


def reason_of(error: BaseException) -> str:
    """Return the words of an error, and the file's name where it has one, without the number of the errno."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror


def _lines(trace: TracebackType | None) -> list[str]:
    lines = []
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return lines
