"""Rate limit like Docker Hub's."""

from collections import Counter
from dataclasses import dataclass, field

from tests.fakes.answer import Answer
from tests.fakes.faults import oci_error


@dataclass(slots=True)
class RateLimit:
    """Limit by user; "" is a client without an account. A GET of a manifest counts, a HEAD only reports.

    `refused` counts the 429s by user.
    """

    limit: int
    retry_after: str | None = None
    window: int = 21600
    used: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def left(self, user: str = "") -> int:
        return max(0, self.limit - self.used[user])

    def refuse(self, method: str, user: str) -> Answer | None:
        """Count a request; return the 429 for one too many."""
        if method != "GET":
            return None
        if self.left(user):
            self.used[user] += 1
            return None
        self.refused[user] += 1
        headers = {"Content-Type": "application/json", **self.headers(user)}
        if self.retry_after is not None:
            headers["Retry-After"] = self.retry_after
        return Answer(oci_error("TOOMANYREQUESTS", "You have reached your pull rate limit."), headers, 429)

    def headers(self, user: str) -> dict[str, str]:
        """Return the headers that each answer about a manifest has."""
        return {
            "ratelimit-limit": f"{self.limit};w={self.window}",
            "ratelimit-remaining": f"{self.left(user)};w={self.window}",
            "docker-ratelimit-source": user or "203.0.113.7",
        }
