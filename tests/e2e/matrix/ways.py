"""Ways in which a client names an upstream to the mirror."""

from enum import Enum

from tests.e2e.matrix.content import Content
from tests.e2e.matrix.stage import OTHER


class Way(Enum):
    """One way; the value is its name in the table."""

    NAME = "mirror's name"
    UPSTREAM = "mirror's name, upstream"
    MIRROR = "mirror setting"
    PATH = "mirror setting, path"
    NS = "`ns`"
    OVERRIDE = "`ns` and `override_path`"

    def repository(self, address: str, content: Content) -> str:
        """Return the name that the client is told; only docker.io is what a mirror without a path means."""
        before = {
            Way.NAME: address,
            Way.UPSTREAM: f"{address}/{OTHER}",
            Way.MIRROR: "docker.io",
            Way.PATH: OTHER,
            Way.NS: OTHER,
            Way.OVERRIDE: OTHER,
        }
        return f"{before[self]}/{content.name}"

    def reference(self, address: str, content: Content) -> str:
        return f"{self.repository(address, content)}:{content.tag}"

    @property
    def slug(self) -> str:
        return self.name.lower()
