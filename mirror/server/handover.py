"""The handover to a newer program from the same path: a deploy that closes no socket (SIGUSR2).

1. The supervisor starts the new program as a *rehearsal*: a child that reads the configuration, imports what
   a worker needs, and ends. A program that is broken, or an older one without a handover, is refused here,
   and nothing has changed.
2. The supervisor then executes the new program in its own place, execve(2). The process id stays, so that a
   service manager, a container or a shell sees the same process. Sockets and workers stay too.
3. The new supervisor starts workers of its own, and retires the old ones as at a reload.

What must stay as it is between versions: the variable, the fields of `Handover`, and the signals to workers.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from msgspec import DecodeError, Struct, json

from mirror.system.sockets import ListeningSocket

# The environment variable for the new program. Not one of the options of the mirror.
VARIABLE = "MIRROR_HANDOVER"
REHEARSAL = "rehearsal"

# Variables of a service manager that are about descriptors which the new program gets by the handover.
LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

# Time, in seconds, for a rehearsal: far more than a start takes.
REHEARSAL_SECONDS = 60.0


class OldWorker(Struct, frozen=True):
    """A worker of the program before. `lifeline`: the descriptor whose end tells that the parent is gone."""

    pid: int
    number: int
    lifeline: int
    ending: bool = False


class Handover(Struct, frozen=True):
    """Descriptors and children that one program hands over to the next, which has process id `pid`.

    `sockets`: descriptors by the name that they are bound for. `folder`: the private folder of the workers;
    `generation`: number of handovers so far.
    """

    pid: int
    sockets: dict[str, list[int]]
    workers: list[OldWorker]
    folder: str
    generation: int = 1

    def listening_sockets(self) -> dict[str, list[ListeningSocket]]:
        """Return the sockets, which no other program inherits from now on."""
        return {name: [_adopt(each) for each in numbers] for name, numbers in self.sockets.items()}


def is_rehearsal(env: Mapping[str, str]) -> bool:
    """Return whether this process is to show only that it can start."""
    return env.get(VARIABLE) == REHEARSAL


def received(env: Mapping[str, str]) -> Handover | None:
    """Return what was handed over to this process, None for an ordinary start."""
    with suppress(DecodeError):  # also msgspec.ValidationError: of no version that this one follows
        handover = json.decode(env.get(VARIABLE, ""), type=Handover)
        if handover.pid == os.getpid():
            return handover
    return None


class Rehearsal:
    """A run of the new program that is to end with exit status 0."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """Start the program by the command that this one was started with. Raises OSError."""
        self.deadline = time.monotonic() + REHEARSAL_SECONDS
        self.pid = os.posix_spawn(
            sys.executable,
            _command(),
            _environment(env, REHEARSAL),
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGHUP, signal.SIGTERM),
        )

    def end(self) -> None:
        """End a rehearsal that takes too long; it is reaped as any other child."""
        os.kill(self.pid, signal.SIGKILL)


def execute(handover: Handover, env: Mapping[str, str]) -> None:
    """Replace this program by the new one. Returns only by an OSError, and nothing has changed then.

    The signals that the caller has blocked stay blocked until the new program handles them.
    """
    passed = [each for numbers in handover.sockets.values() for each in numbers]
    passed += [each.lifeline for each in handover.workers]
    try:
        _set_inheritable(passed, inheritable=True)
        text = json.encode(handover).decode()
        os.execve(sys.executable, _command(), _environment(env, text))  # noqa: S606  # our own command
    finally:
        _set_inheritable(passed, inheritable=False)


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]


def _environment(env: Mapping[str, str], text: str) -> dict[str, str]:
    kept = {name: value for name, value in env.items() if name not in LISTEN_VARIABLES}
    return {**kept, VARIABLE: text}


def _set_inheritable(descriptors: Sequence[int], *, inheritable: bool) -> None:
    for each in descriptors:
        os.set_inheritable(each, inheritable)


def _adopt(number: int) -> ListeningSocket:
    os.set_inheritable(number, False)
    adopted = ListeningSocket(fileno=number)
    adopted.setblocking(False)
    return adopted
