"""`healthcheck` as a process: exit status and what it prints."""

import asyncio
from pathlib import Path

from tests.unit.cli.test_app import run


async def test_healthcheck_goes_by_the_configuration(tmp_path: Path) -> None:
    """Exit status 0 with an answer from the address of the configuration, 1 with a reason without one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status = b"503 Unavailable" if b"/readyz" in head else b"200 OK"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 3\r\n\r\nok\n")
        await writer.drain()
        writer.close()

    file = tmp_path / "mirror.toml"
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(file.write_text, f'[server]\nlisten = [":{port}"]\n')
        alive = await asyncio.to_thread(run, "healthcheck", "--config", str(file))
        ready = await asyncio.to_thread(run, "healthcheck", "--ready", "--config", str(file))
    gone = await asyncio.to_thread(run, "healthcheck", "--config", str(file))
    assert (alive.returncode, alive.stdout) == (0, "ok\n"), alive.stderr
    assert ready.returncode == 1
    assert "/readyz answered 503" in ready.stderr
    assert gone.returncode == 1
    assert f"http://127.0.0.1:{port}/healthz does not answer" in gone.stderr
