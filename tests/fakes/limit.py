"""A rate limit as Docker Hub has it."""

from collections import Counter
from dataclasses import dataclass, field

from tests.fakes.answer import Answer
from tests.fakes.faults import oci_error


@dataclass(slots=True)
class RateLimit:
    """By user, "" being nobody in particular: a GET of a manifest counts, a HEAD only tells what is left.

    `refused`: how many answers were 429, by user.
    """

    limit: int
    retry_after: str | None = None
    window: int = 21600
    used: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def left(self, user: str = "") -> int:
        return max(0, self.limit - self.used[user])

    def refuse(self, method: str, user: str) -> Answer | None:
        """Count a request; the answer to one too many."""
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
        """What every answer about a manifest tells."""
        return {
            "ratelimit-limit": f"{self.limit};w={self.window}",
            "ratelimit-remaining": f"{self.left(user)};w={self.window}",
            "docker-ratelimit-source": user or "203.0.113.7",
        }
