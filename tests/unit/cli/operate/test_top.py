"""`top` as a process: against a running mirror, on a terminal and for scripts, and without a mirror."""

import asyncio
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fakes.registry import FakeRegistry
from tests.paged import paged
from tests.running import configured
from tests.unit.cli.terminal import read_to_end
from tests.unit.cli.test_app import COMMAND, run
from tests.wire import Wire

RULES = [{"name": "no betas", "effect": "deny", "tags": ["*beta*"]}]


class OnTerminal:
    """A command on a terminal, whose screen is read as it comes."""

    def __init__(self, main: int, process: "subprocess.Popen[bytes]") -> None:
        self.main = main
        self.process = process
        self.shown = b""

    def wait_for(self, text: bytes) -> None:
        """Read until the screen has had `text`."""
        while text not in self.shown:
            assert select.select([self.main], [], [], 60)[0], self.shown
            self.shown += os.read(self.main, 65536)

    def end(self) -> int:
        """Read to the end; return the exit status."""
        self.shown += read_to_end(self.main)
        return self.process.wait(60)


def start(columns: int, lines: int, arguments: tuple[str, ...]) -> OnTerminal:
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    env["TERM"] = "xterm-256color"
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=terminal, stdout=terminal, stderr=terminal, env=env
    )
    os.close(terminal)
    return OnTerminal(main, process)


@asynccontextmanager
async def on_terminal(columns: int, lines: int, *arguments: str) -> AsyncIterator[OnTerminal]:
    """Run a command on a terminal of its own."""
    running = await asyncio.to_thread(start, columns, lines, arguments)
    try:
        yield running
    finally:
        running.process.kill()
        await asyncio.to_thread(running.process.wait)
        os.close(running.main)


async def test_top_shows_a_running_mirror_until_q(tmp_path: Path) -> None:
    """The screen has the pulled image, renews itself, and leaves the terminal as it was."""
    async with FakeRegistry() as hub:
        blob = hub.add_blob("team/app", b"x" * 70_000)
        async with paged(configured(tmp_path, {"hub.test": hub.url})) as mirror:

            async def pull() -> None:
                async with await Wire.open(mirror.address) as wire:
                    wire.send("GET", f"/v2/team/app/blobs/{blob}")
                    assert (await wire.reply()).status == 200

            await pull()
            server = f"http://{mirror.admin}"
            async with on_terminal(90, 24, "top", "--server", server, "--interval", "0.2") as screen:
                await asyncio.to_thread(screen.wait_for, b"team/app")
                assert termios.tcgetattr(screen.main)[3] & termios.ICANON == 0
                assert server.encode() in screen.shown
                async with await Wire.open(mirror.address) as wire:
                    wire.send("GET", "/v2/other/thing/manifests/1")
                    assert (await wire.reply()).status == 404
                await asyncio.to_thread(screen.wait_for, b"other/thing")
                await asyncio.to_thread(os.write, screen.main, b"xq")
                assert await asyncio.to_thread(screen.end) == 0
            assert b"\x1b[?1049h" in screen.shown  # the other screen of the terminal,
            assert b"\x1b[?1049l" in screen.shown  # which is left


async def test_top_waits_for_a_mirror_that_restarts(tmp_path: Path) -> None:
    """A mirror that ends leaves its last screen, with the reason; Ctrl-C ends the command with 130."""
    async with FakeRegistry() as hub, paged(configured(tmp_path, {"hub.test": hub.url})) as mirror:
        arguments = ("top", "--server", f"http://{mirror.admin}", "--interval", "0.2")
        async with on_terminal(120, 24, *arguments) as screen:
            await asyncio.to_thread(screen.wait_for, b"cache")
            mirror.stop.set()
            await asyncio.to_thread(screen.wait_for, b"does not answer")
            screen.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(screen.end) == 130
            assert b"Traceback" not in screen.shown


async def test_top_for_scripts(tmp_path: Path) -> None:
    """`--once` prints text, with `--json` a document of the API's answers."""
    async with FakeRegistry() as hub, paged(configured(tmp_path, {"hub.test": hub.url})) as mirror:
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", "/v2/other/thing/manifests/1")
            assert (await wire.reply()).status == 404
        while not (await mirror.api("activity"))["recent"]:
            pass  # the reply may come before its record
        env = {"REGISTRY_MIRROR_URL": f"http://{mirror.admin}"}
        text = await asyncio.to_thread(run, "top", "--once", env=env)
        found = await asyncio.to_thread(run, "top", "--once", "--json", env=env)
        assert text.returncode == 0, text.stderr
        assert "hub.test/other/thing:1" in text.stdout
        document = json.loads(found.stdout)
        assert document["about"]["operator"] is True
        assert document["activity"]["recent"][0]["repository"] == "other/thing"
        assert document["disk"]["free"] > 0
        assert document["troubles"] == []


async def test_top_without_rights_and_with_a_wrong_token(tmp_path: Path) -> None:
    """A visitor who is no operator is told so; a token that is not known is refused, and never shown."""
    config = configured(tmp_path, {"hub.test": "http://127.0.0.1:9"}, rules=RULES)
    secret = tmp_path / "token"
    await asyncio.to_thread(secret.write_text, "rmt_nothing_of_this_mirror_00000000000000\n")
    async with paged(config) as mirror:
        server = f"http://{mirror.admin}"
        less = await asyncio.to_thread(run, "top", "--once", "--server", server)
        wrong = await asyncio.to_thread(run, "top", "--once", "--server", server, "--token-file", str(secret))
    assert less.returncode == 0, less.stderr
    assert "only what 127.0.0.1 may see" in less.stdout
    assert "cache" not in less.stdout.splitlines()[2:3]
    assert wrong.returncode == 1
    assert "rmt_" not in wrong.stderr + wrong.stdout


def test_top_without_a_mirror(tmp_path: Path) -> None:
    """Nothing runs, no pages are configured, the URL is wrong: a sentence that says what to do, and 1."""
    file = tmp_path / "mirror.toml"
    file.write_text('[admin]\nlisten = ["127.0.0.1:1"]\n')
    gone = run("top", "--config", str(file))
    assert gone.returncode == 1
    assert gone.stderr == (
        "registry-mirror: http://127.0.0.1:1 does not answer: Connection refused. Is the mirror running?\n"
    )
    none = run("top", "--config", "", "--json")
    assert none.returncode == 1
    assert "listen = " in none.stderr
