"""`registry-mirror serve` with workers, as processes, in front of fakes in the test's process."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from mirror.oci.digest import Digest
from tests.e2e.processes import free_port, wait_until
from tests.running import CHUNK
from tests.wire import Wire, get

CONFIG = """
[server]
listen = ["127.0.0.1:{port}"]
workers = {workers}
{server}
[fill]
chunk_size = {chunk}
prefetch = 0
parallel = 1
[[upstream]]
name = "docker.io"
url = "{upstream}"
"""


class Fleet:
    """Parent and workers. Blocking calls run in threads."""

    def __init__(self, folder: Path, upstream: str, workers: int, server: str = "") -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.log = folder / "log"
        self.config = folder / "mirror.toml"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._upstream = upstream
        self._process: subprocess.Popen[bytes] | None = None
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(folder / "notify"))
        self._manager.settimeout(60)
        self.configure(workers, server)

    def configure(self, workers: int, server: str = "", after: str = "") -> None:
        """Write the configuration for the start, or for the next SIGHUP. `after`: further tables."""
        values = {"port": self.port, "chunk": CHUNK, "upstream": self._upstream}
        self.config.write_text(CONFIG.format(workers=workers, server=server, **values) + after)

    async def start(self, before: Sequence[str] = (), descriptors: Sequence[int] = ()) -> None:
        """Start the parent. `before` is the command that runs it; it inherits `descriptors`."""
        command = [*before, sys.executable, "-m", "mirror", "serve", "--config", str(self.config)]
        env = {**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify")}

        def begin() -> None:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*command, "--cache-dir", str(self.cache)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=env,
                    pass_fds=descriptors,
                )

        await asyncio.to_thread(begin)

    async def notified(self, *states: str) -> None:
        """Wait for these notifications to the service manager, in this order."""
        for state in states:
            said = (await asyncio.to_thread(self._manager.recv, 200)).decode()
            assert said.startswith(state), f"{said}, not {state}:\n{await self.logged()}"

    async def logged(self) -> str:
        return await asyncio.to_thread(self.log.read_text)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def exit_status(self) -> int:
        """Wait for the end of the parent."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, 60)

    async def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        assert self._process is not None
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(each) for each in (await asyncio.to_thread(path.read_text)).split()]

    async def until(self, condition: Callable[[list[int]], bool], what: str) -> None:
        """Wait until `condition` holds for the workers' process ids."""
        loop = asyncio.get_running_loop()

        def met() -> bool:
            return condition(asyncio.run_coroutine_threadsafe(self.workers(), loop).result(60))

        await asyncio.to_thread(wait_until, met, what)

    async def stop_accepting(self, workers: Sequence[int]) -> None:
        """Wait until these workers have closed the listening socket: they may do so after READY=1."""

        def accepting() -> bool:
            rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
            local = f"0100007F:{self.port:04X}"  # 127.0.0.1; state 0A: LISTEN (proc_net(5))
            listening = {f"socket:[{row[9]}]" for row in rows if (row[1], row[3]) == (local, "0A")}
            return any(not listening.isdisjoint(_descriptors(worker)) for worker in workers)

        await asyncio.to_thread(wait_until, lambda: not accepting(), "the old workers accept no more")

    async def connect(self, worker: int) -> Wire:
        """Connect to this worker: the others are stopped meanwhile."""
        others = [each for each in await self.workers() if each != worker]
        for each in others:
            os.kill(each, signal.SIGSTOP)
        try:
            wire = await Wire.open(self.address)
            wire.send("GET", "/v2/")
            assert (await wire.reply()).status == 200
        finally:
            for each in others:
                os.kill(each, signal.SIGCONT)
        return wire

    async def filling(self, digest: Digest) -> int:
        """Return the process that holds the lock of the blob's partial."""

        def look() -> int:
            inode = os.stat(self.cache / "partial" / f"{digest.algorithm}-{digest.encoded}.map").st_ino
            rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
            return next(int(row[4]) for row in rows if row[1] == "FLOCK" and row[5].endswith(f":{inode}"))

        return await asyncio.to_thread(look)

    async def metric(self, line: str, wire: Wire | None = None) -> float:
        """Return the metric with the name and labels `line`, from the worker at the end of `wire`."""
        if wire is None:
            body = (await get(self.address, "/metrics")).body
        else:
            wire.send("GET", "/metrics")
            body = (await wire.reply()).body
        lines = body.decode().splitlines()
        return next(float(each.rpartition(" ")[2]) for each in lines if each.startswith(f"{line} "))

    async def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                await self.exit_status()
            except subprocess.TimeoutExpired:
                self._process.kill()
                await self.exit_status()
        self._manager.close()


def _descriptors(pid: int) -> Iterator[str]:
    """Targets of the open descriptors of a process; none of a process that has ended."""
    with suppress(OSError):
        # A list: its reader stops early, and an iterator of os.scandir that is not read to its end warns.
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{descriptor}")


@asynccontextmanager
async def fleet(folder: Path, upstream: str, workers: int, server: str = "") -> AsyncIterator[Fleet]:
    """Run a fleet, ready."""
    running = await asyncio.to_thread(Fleet, folder, upstream, workers, server)
    try:
        await running.start()
        await running.notified("READY=1")
        yield running
    except BaseException:
        print(await running.logged())
        raise
    finally:
        await running.close()
