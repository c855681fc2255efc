"""Programs that print credentials: environment, time, output, and their end."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mirror.credentials import process
from mirror.credentials.credential import CredentialError
from mirror.credentials.process import Program, run, small_environment
from tests.fakes.programs import FakeProgram, write_file


def program(fake: FakeProgram, seconds: float = 60.0, **environment: str) -> Program:
    return Program((str(fake.path), "get"), {"PATH": os.environ["PATH"], **environment}, seconds)


@pytest.fixture
def fake(tmp_path: Path) -> FakeProgram:
    return FakeProgram(tmp_path / "bin", "prog")


async def test_program_gets_input_and_a_small_environment(fake: FakeProgram) -> None:
    """Nothing of this process's environment but what is given, in a folder that is always there."""
    fake.does("pwd; printf geheim")
    finished = await run(program(fake, A="1"), b"quay.io")
    assert (finished.status, finished.output) == (0, b"/\ngeheim")
    assert "geheim" not in repr(finished)
    (call,) = fake.calls
    arguments, given, environment = call.split("|")
    assert (arguments, given) == ("get", "quay.io")
    assert {each.partition("=")[0] for each in environment.split()} <= {"PATH", "A", "PWD"}


async def test_program_that_reads_nothing_is_no_error(fake: FakeProgram) -> None:
    """The pipe is closed when the input is written."""
    write_file(fake.path, "#!/bin/sh\nexec <&-\nexit 3\n", 0o755)
    assert (await run(program(fake), b"x" * 1_000_000)).status == 3


async def test_program_that_hangs_is_killed_with_its_children(fake: FakeProgram, tmp_path: Path) -> None:
    """The child of a helper holds its output open, and would live on."""
    pids = tmp_path / "pids"
    fake.does(f"sleep 600 & echo $! $$ > '{pids}.new'; mv '{pids}.new' '{pids}'; wait")
    with pytest.raises(CredentialError, match=r"did not end within 0.5 s, and was killed"):
        await run(program(fake, seconds=0.5))
    assert await asyncio.to_thread(_living, pids) == []


async def test_program_that_leaves_a_child_behind_has_answered(fake: FakeProgram, tmp_path: Path) -> None:
    """The answer counts although the child holds the output open; the child is killed."""
    pid = tmp_path / "pid"
    fake.does(f"sleep 600 & echo $! > '{pid}.new'; mv '{pid}.new' '{pid}'; printf geheim; exit 0")
    assert (await run(program(fake))).output == b"geheim"
    assert await asyncio.to_thread(_living, pid) == []


async def test_program_with_endless_output_is_killed(
    fake: FakeProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has no word of the output."""
    monkeypatch.setattr(process, "MOST_OUTPUT", 1000)
    fake.does("while :; do echo geheim; done")
    with pytest.raises(CredentialError, match="wrote more than 1000 bytes, and was killed") as raised:
        await run(program(fake))
    assert "geheim" not in str(raised.value)


async def test_program_that_is_missing_or_no_program_is_named(tmp_path: Path) -> None:
    """The reason says where it was looked for."""
    with pytest.raises(CredentialError, match=r"no-such-prog is not installed: it is not in /nowhere"):
        await run(Program(("no-such-prog",), {"PATH": "/nowhere"}))
    write_file(tmp_path / "text", "no program")
    with pytest.raises(CredentialError, match="cannot be run: permission denied"):
        await run(Program((str(tmp_path / "text"),), {}))
    with pytest.raises(CredentialError, match="cannot be passed"):
        await run(Program(("true", "a\0b"), {"PATH": "/bin"}))


def test_small_environment_has_no_secrets_unless_named() -> None:
    """Names of files and roles are passed; keys and proxies with a password if an operator names them."""
    env = {
        "PATH": "/bin",
        "AWS_PROFILE": "mirror",
        "AWS_SECRET_ACCESS_KEY": "geheim",
        "HTTPS_PROXY": "http://me:geheim@proxy.lan",
        "HTTP_PROXY": "http://proxy.lan",
        "REGISTRY_MIRROR_LOGIN_QUAY_IO": "me:geheim",
    }
    assert small_environment(env) == {
        "PATH": "/bin",
        "AWS_PROFILE": "mirror",
        "HTTP_PROXY": "http://proxy.lan",
    }
    assert "AWS_SECRET_ACCESS_KEY" in small_environment(env, ["AWS_SECRET_*"])
    assert small_environment({})["PATH"] == process.DEFAULT_PATH


def _living(pids: Path) -> list[str]:
    """Return the processes of a file that still run."""
    numbers = pids.read_text().split()
    assert numbers
    return [pid for pid in numbers if _lives(int(pid))]


def _lives(pid: int) -> bool:
    """Return whether a process that was killed is still there; a zombie is not, nor is it after a moment."""
    for _ in range(1000):
        with suppress(OSError, IndexError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.01)
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    return True
