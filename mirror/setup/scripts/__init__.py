"""Shell scripts that set a client up without Python, as the mirror serves them.

`@SCHEME@`, `@ADDRESS@`, `@UPSTREAMS@` and `@VERSION@` stand for the mirror's; all are made of letters, digits
and characters of addresses, and stand in single quotes.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = ("docker", "containerd", "podman", "k3s")


def read_scripts() -> dict[str, str]:
    """Return the scripts by the name of their client, each with the part that all have in common."""
    common = (FOLDER / "common.sh").read_text()
    return {name: (FOLDER / f"{name}.sh").read_text().replace("@COMMON@\n", common) for name in NAMES}
