"""Programs that print credentials: without a shell, with a small environment, bounded in time and output.

The program is a session of its own, so that all that it starts is killed with it. Its standard error is
dropped: no word of it gets into a log, because nobody knows which of them are secret.
"""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from subprocess import DEVNULL, PIPE

from msgspec import Struct

from mirror.credentials.credential import CredentialError

# Limits of a program: seconds, and bytes of output.
SECONDS = 30.0
MOST_OUTPUT = 128 * 1024
# Seconds for what is left of the output after the end of the program, and for its end after it was killed.
GRACE = 1.0

# Variables that programs get if they are set. None of them holds a secret: names of files, regions, roles.
PASSED = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "XDG_RUNTIME_DIR",
    "DOCKER_CONFIG",
    "GNUPGHOME",
    "PASSWORD_STORE_DIR",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_EC2_METADATA_DISABLED",
    "CLOUDSDK_CONFIG",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_CLIENT_ID",
    "AZURE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
)
# Passed unless a user is in the URL, which may have a password.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Program(Struct, frozen=True):
    """A program with its arguments, and the environment that it gets."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    seconds: float = SECONDS

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def name(self) -> str:
        return self.arguments[0]


class Finished(Struct, frozen=True):
    """Exit status and output of a program, which may be a secret."""

    status: int
    output: bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.status!r})"


def small_environment(env: Mapping[str, str], more: Sequence[str] = ()) -> dict[str, str]:
    """Return the variables of `env` that a program gets; `more` are patterns of further names."""
    kept = {name: env[name] for name in PASSED if name in env}
    kept |= {name: env[name] for name in PROXIES if name in env and "@" not in env[name]}
    kept |= {name: value for name, value in env.items() if any(fnmatchcase(name, each) for each in more)}
    return {"PATH": DEFAULT_PATH, **kept}


class _Collector(asyncio.SubprocessProtocol):
    """The output of a program; `done` has its end, or what is wrong with it."""

    def __init__(self, program: Program) -> None:
        self.output = bytearray()
        self.complete = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._program = program

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.output += data
        if len(self.output) > MOST_OUTPUT and not self.done.done():
            message = f"{self._program.name} wrote more than {MOST_OUTPUT} bytes, and was killed"
            self.done.set_exception(CredentialError(message))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self.complete = True
            self._end_if(self.exited.done())

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)
        self._end_if(self.complete)
        # A child that it has left behind may hold its output open.
        asyncio.get_running_loop().call_later(GRACE, self._end_if, True)

    def _end_if(self, ended: bool) -> None:
        if ended and not self.done.done():
            self.done.set_result(None)


async def run(program: Program, given: bytes = b"") -> Finished:
    """Run a program with `given` as its standard input. Raises CredentialError if that fails."""
    transport, collector = await _start(program)
    try:
        _write(transport, given)
        async with asyncio.timeout(program.seconds):
            await collector.done
        return Finished(transport.get_returncode() or 0, bytes(collector.output))
    except TimeoutError:
        message = f"{program.name} did not end within {program.seconds:g} s, and was killed"
        raise CredentialError(message) from None
    finally:
        await _end(transport, collector)


async def _start(program: Program) -> tuple[asyncio.SubprocessTransport, _Collector]:
    try:
        return await asyncio.get_running_loop().subprocess_exec(
            lambda: _Collector(program),
            *program.arguments,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=dict(program.environment),
            cwd="/",
            start_new_session=True,
        )
    except FileNotFoundError:
        where = program.environment.get("PATH", "")
        message = f"{program.name} is not installed: it is not in {where}"
        raise CredentialError(message) from None
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or "its name or an argument cannot be passed").lower()
        raise CredentialError(f"{program.name} cannot be run: {why}") from None


def _write(transport: asyncio.SubprocessTransport, given: bytes) -> None:
    """Write the input. That the program reads none of it is not an error."""
    pipe = transport.get_pipe_transport(0)
    if isinstance(pipe, asyncio.WriteTransport):
        pipe.write(given)
        pipe.write_eof()


async def _end(transport: asyncio.SubprocessTransport, collector: _Collector) -> None:
    """Kill what has not ended, with all that it has started, and wait for its end."""
    # A group whose leader has ended keeps its number as long as a member lives.
    if not (collector.exited.done() and collector.complete):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
    transport.close()
    await asyncio.wait([collector.exited], timeout=GRACE)
