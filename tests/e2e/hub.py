"""registry-1.docker.io itself, for clients without a mirror, or after all their mirrors have failed."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.origin import NGINX, Authority, Origin
from tests.e2e.processes import Process, free_port, listens
from tests.programs import program


@dataclass(frozen=True)
class RealHub:
    """TLS in front of an origin. While `process` is stopped, connections are refused.

    A program that runs with `wrapper` and `env` finds the registry under its name, and trusts it.
    """

    wrapper: tuple[str, ...]
    env: dict[str, str]
    process: Process


@contextmanager
def real_hub(hub: Origin, folder: Path) -> Iterator[RealHub]:
    """Run nginx in front of `hub`, on an address of loopback that no other test run uses."""
    folder.mkdir()
    authority = Authority(folder, "registry-1.docker.io")
    address = f"127.53.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
    tls = f"""
    server {{
        listen {address}:443 ssl;
        ssl_certificate {authority.certificate};
        ssl_certificate_key {authority.key};
        location / {{ proxy_pass {hub.url}; proxy_set_header Host $host; }}
    }}
    """
    port = free_port()
    (folder / "nginx.conf").write_text(
        NGINX.format(folder=folder, host="127.0.0.1", port=port, storage=folder, limit="", more=tls)
    )
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} registry-1.docker.io\n")
    bundle = folder / "bundle.crt"
    system = ssl.get_default_verify_paths().cafile
    roots = Path(system).read_text() if system else ""
    bundle.write_text(roots + authority.certificate.read_text())
    command: list[str | Path] = [program("nginx"), "-c", folder / "nginx.conf", "-g", "user root;"]
    process = Process(command, folder / "nginx.out", lambda: listens(443, address))
    with process:
        yield RealHub(mounted({folder / "hosts": "/etc/hosts"}), {"SSL_CERT_FILE": str(bundle)}, process)


def mounted(files: dict[Path, str]) -> tuple[str, ...]:
    """Return the command that runs a program for which these files lie in the places of others."""
    mounts = "".join(f"mount --bind {file} {place} && " for file, place in files.items())
    return (program("unshare"), "--mount", "sh", "-c", f'{mounts}exec "$@"', "sh")
