"""Mirror as its users run it: a process, its flags, its own probes."""

import json
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.e2e.processes import Process, free_port

# The program of this checkout.
PROGRAM: tuple[str | Path, ...] = (sys.executable, "-m", "mirror")


class Mirror(Process):
    """`registry-mirror serve` in front of an origin; may be killed and started again.

    `wrapper` is the command that runs it, `unshare` for instance.
    """

    def __init__(
        self,
        folder: Path,
        upstream: str,
        *flags: str | Path,
        wrapper: Sequence[str] = (),
        program: Sequence[str | Path] = PROGRAM,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self.cache = folder / "cache"
        command: list[str | Path] = [
            *wrapper,
            *program,
            *("serve", "--listen", self.address, "--cache-dir", self.cache),
            *("--upstream", f"docker.io={upstream}", *flags),
        ]
        folder.mkdir(exist_ok=True)
        super().__init__(command, folder / "mirror.log", self._is_ready, env)

    def metric(self, line: str) -> float:
        """Return a metric by name and labels; 0 when it was never counted."""
        text = urllib.request.urlopen(f"{self.url}/metrics").read().decode()
        values = [each.rpartition(" ")[2] for each in text.splitlines() if each.startswith(f"{line} ")]
        return float(values[0]) if values else 0.0

    def lines(self, repository: str) -> list[dict[str, Any]]:
        """Return the log lines about a repository."""
        text = self.log.read_text(errors="replace")
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [line for line in lines if str(line.get("repository", "")).endswith(repository)]

    def received(self) -> float:
        """Return the bytes received from the upstream since the start."""
        return self.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}')

    def _is_ready(self) -> bool:
        with suppress(OSError):
            return bool(urllib.request.urlopen(f"{self.url}/readyz", timeout=1).status == 200)
        return False
