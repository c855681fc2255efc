"""The connection of commands to a running mirror: who is refused, and how that is said."""

import asyncio
from pathlib import Path

import pytest

from tests.remote import holding
from tests.unit.cli.test_app import run

pytestmark = pytest.mark.usefixtures("own_logging")


async def test_commands_ask_a_running_mirror(tmp_path: Path) -> None:
    """The token comes from a file or the environment; a command without one is told what to do."""
    async with holding(tmp_path) as (mirror, remote):
        server = f"http://{mirror.admin}"
        secret = remote.client._headers["Authorization"].rpartition(" ")[2]
        file = tmp_path / "token"
        await asyncio.to_thread(file.write_text, secret)
        listed = await asyncio.to_thread(run, "ls", "--server", server)
        assert (listed.returncode, "docker.io/library/alpine:3.20" in listed.stdout) == (0, True)
        refused = await asyncio.to_thread(run, "rm", "alpine:3.20", "--yes", "--server", server)
        assert refused.returncode == 1
        assert "registry-mirror token create" in refused.stderr
        done = await asyncio.to_thread(
            run, "rm", "alpine:3.20", "--yes", "--server", server, "--token-file", str(file)
        )
        assert (done.returncode, done.stdout) == (0, "removed docker.io/library/alpine:3.20\n")
        assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["ls", "--server", "http://127.0.0.1:9"], "does not answer", 1),
        (["du", "--server", "mirror.lan"], "--server must be a URL", 1),
        (["gc", "--server", "http://127.0.0.1:9", "--token-file", "/nowhere"], "cannot be read", 1),
        (["rm", "x", "--json", "--server", "http://127.0.0.1:9"], "add --yes", 2),
        (["pin", "x:*", "--server", "http://127.0.0.1:9"], "name one image", 2),
        (["warm", "--server", "http://127.0.0.1:9"], "give images", 2),
    ],
)
def test_commands_say_why_a_mirror_cannot_be_asked(arguments: list[str], words: str, status: int) -> None:
    """No traceback, and no errno first."""
    done = run(*arguments)
    assert (done.returncode, words in done.stderr) == (status, True), done.stderr
