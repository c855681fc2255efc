"""A system's files in a folder, and mirrors for it."""

from pathlib import Path

from mirror.setup.plan import Mirror, Request, Root, SetupPlan, UpstreamEntry, Version

HUB = UpstreamEntry("docker.io", ("index.docker.io", "registry-1.docker.io"))
QUAY = UpstreamEntry("quay.io")
CA = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"

PLAIN = Mirror("mirror.lan:5000", False, (HUB, QUAY))
SECURE = Mirror("mirror.lan:5000", True, (HUB, QUAY), CA)
LOCAL = Mirror("127.0.0.1:5000", False, (HUB, QUAY))


class System:
    """Files below a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.root = Root(folder)

    def write(self, path: str, text: str) -> None:
        place = self.root.place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def request(self, mirror: Mirror = PLAIN, version: str | None = None, file: str | None = None) -> Request:
        return Request(self.root, mirror, None if version is None else Version.parse(version), file)

    def apply(self, plan: SetupPlan) -> None:
        """Write the files of a plan without further ado."""
        for file in plan.files:
            self.write(file.path, file.text)


def texts(plan: SetupPlan) -> dict[str, str]:
    """Return the files of a plan, by path."""
    return {file.path: file.text for file in plan.files}
