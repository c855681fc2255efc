"""The handover from one program to the next; tests/e2e/test_restarts.py has the whole of it."""

import os
import socket
import subprocess
import sys

import pytest

from mirror.server.handover import REHEARSAL, VARIABLE, Handover, OldWorker, is_rehearsal, received

# A program that is executed in its own place once, and prints what it was handed over.
SCRIPT = """
import os, socket, sys
from mirror.config.loader import environment
from mirror.server.handover import Handover, OldWorker, execute, received
from mirror.system.sockets import format_address

handover = received(environment())
if handover is None:
    listening = socket.create_server(("127.0.0.1", 0))
    reading, writing = os.pipe()
    worker = OldWorker(os.getpid(), 3, writing)
    execute(Handover(os.getpid(), {"": [listening.fileno()]}, [worker], "/x"), environment())
((each,),) = handover.listening_sockets().values()
(worker,) = handover.workers
os.fstat(worker.lifeline)
print(each.getsockname()[1] > 0, os.get_inheritable(each.fileno()), worker.number, handover.folder)
print([name for name in environment() if name.startswith("LISTEN_")])
"""


def test_handover_passes_sockets_and_workers() -> None:
    """The process executes the command it was started with, and has its descriptors and its id still."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == ["True False 3 /x", "[]"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "rehearsal"])
def test_handover_to_nobody_is_an_ordinary_start(text: str) -> None:
    """A text that is not understood is ignored."""
    assert received({VARIABLE: text}) is None
    assert received({}) is None


def test_handover_is_for_one_process() -> None:
    """Programs that a later process starts inherit the variable."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        worker = OldWorker(1, 0, 9)
        fields = {"sockets": {"": [listening.fileno()]}, "workers": [worker], "folder": "/x"}
        for pid, expected in ((os.getpid(), True), (os.getpid() + 1, False)):
            import msgspec

            text = msgspec.json.encode(Handover(pid=pid, **fields)).decode()  # type: ignore[arg-type]
            assert (received({VARIABLE: text}) is not None) is expected


def test_rehearsal_is_told_apart() -> None:
    """A rehearsal gets no descriptors."""
    assert is_rehearsal({VARIABLE: REHEARSAL})
    assert not is_rehearsal({VARIABLE: "{}"})
    assert not is_rehearsal({})
