"""python -m tests.fuzz.watched FOLDER BOUNDS serve ...: a mirror whose workers tell what their memory holds.

Each worker listens on `FOLDER/<pid>`, and answers a line, `live` or `containers`, with a document of JSON.
Nothing of the mirror knows of that. BOUNDS is "default", "small" (containers with a bound in bytes have
SMALL_BYTES, those with one in entries SMALL_ENTRIES) or "leaking": as "small", but what such a container
evicts is kept all the same, which is the leak that the fuzz must find.
"""

import ctypes
import gc
import json
import os
import re
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mirror.util import lru, ttl_cache

BOUNDS = ("default", "small", "leaking")

# Bounds of containers in a mirror with small ones: full after some thousand requests.
SMALL_BYTES, SMALL_ENTRIES = 128 * 1024, 128

# Containers with fewer entries are not told.
FEW = 32


_FIELDS = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of <malloc.h>."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def live() -> dict[str, int]:
    """Return the bytes in use in malloc and in Python's allocator, after a collection; and free ones."""
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _MallInfo
    found = libc.mallinfo2()
    used, python = found.uordblks + found.hblkhd, _bytes_of_python(libc)
    return {"live": used + python, "malloc": used, "free": found.fordblks, "resident": _resident()}


def _bytes_of_python(libc: ctypes.CDLL) -> int:
    """Return the bytes of blocks in use in Python's own allocator, by the report that it prints."""
    libc.fdopen.restype = ctypes.c_void_p
    with TemporaryFile("w+b") as file:
        stream = ctypes.c_void_p(libc.fdopen(os.dup(file.fileno()), b"w"))
        ctypes.pythonapi._PyObject_DebugMallocStats(stream)
        libc.fclose(stream)
        file.seek(0)
        match = re.search(r"# bytes in allocated blocks\s*=\s*([0-9,]+)", file.read().decode())
    return int(match[1].replace(",", "")) if match else 0


def _resident() -> int:
    match = re.search(r"RssAnon:\s*([0-9]+)", Path("/proc/self/status").read_text())
    return int(match[1]) * 1024 if match else 0


def containers() -> dict[str, list[int]]:
    """Return length, bytes and bound of the containers of the mirror's objects, as far as they know them."""
    found: dict[str, list[int]] = {}
    for thing in _reachable():
        kind = type(thing)
        if not str(kind.__module__).startswith("mirror.") or isinstance(
            thing, lru.LRUCache | ttl_cache.TTLCache
        ):
            continue
        slots = [name for each in kind.__mro__ for name in getattr(each, "__slots__", ())]
        for name in {*getattr(thing, "__dict__", {}), *slots}:
            row = _measured(getattr(thing, name, None))
            if row[0] >= FEW:
                place = f"{kind.__name__}.{name}"
                found[place] = [a + b for a, b in zip(found.get(place, [0, 0, 0]), row, strict=True)]
    return found


def _reachable() -> Iterator[object]:
    """Yield all objects, those too that the mirror has frozen, which the collector does not tell."""
    pending, seen = gc.get_objects(), set[int]()
    while pending:
        thing = pending.pop()
        if id(thing) not in seen:
            seen.add(id(thing))
            pending += gc.get_referents(thing)
            if not isinstance(thing, type):
                yield thing


def _measured(thing: object) -> list[int]:
    if isinstance(thing, lru.LRUCache):
        return [len(thing), thing.size, thing._limit]
    if isinstance(thing, ttl_cache.TTLCache):
        return [len(thing._entries), 0, thing._max_entries]
    return [len(thing), 0, 0] if isinstance(thing, dict | list | set | deque) else [0, 0, 0]


def _listen(folder: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / str(os.getpid())))
    listener.listen()
    threading.Thread(target=_answer, args=(listener,), name="watched", daemon=True).start()


def _answer(listener: socket.socket) -> None:
    questions: dict[bytes, Any] = {b"live": live, b"containers": containers}
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(json.dumps(questions[lines.readline().strip()]()).encode())


def _lower_bounds() -> None:
    """Give containers small bounds, before any is made."""
    make_lru, make_ttl = lru.LRUCache.__init__, ttl_cache.TTLCache.__init__

    def small_lru(self: Any, limit: int) -> None:
        make_lru(self, min(limit, SMALL_BYTES))

    def small_ttl(self: Any, seconds: float, max_entries: int, *more: Any) -> None:
        make_ttl(self, seconds, min(max_entries, SMALL_ENTRIES), *more)

    lru.LRUCache.__init__ = small_lru  # type: ignore[method-assign]
    ttl_cache.TTLCache.__init__ = small_ttl  # type: ignore[method-assign,assignment]


def _leak() -> None:
    """Keep all that is put into a container with a bound in bytes."""
    put, kept = lru.LRUCache.put, []

    def keeping(self: Any, key: Any, value: Any, length: int) -> None:
        kept.append((key, value))
        put(self, key, value, length)

    lru.LRUCache.put = keeping  # type: ignore[method-assign]


def main() -> None:
    folder, bounds, *words = sys.argv[1:]
    if bounds != "default":
        _lower_bounds()
    if bounds == "leaking":
        _leak()
    os.register_at_fork(after_in_child=lambda: _listen(Path(folder)))
    sys.argv = ["registry-mirror", *words]
    from mirror.cli.app import main as serve

    serve()


if __name__ == "__main__":
    main()
