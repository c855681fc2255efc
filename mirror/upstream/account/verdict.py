"""Verdict of an upstream about the password of one account: accepted, refused, or not known."""

from collections.abc import Callable

from yarl import URL

from mirror.credentials.credential import Credential
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.outage import Outage
from mirror.util.log import get_logger

log = get_logger(__name__)

# Docker Hub locks an account for 10 minutes after some wrong passwords: do not send one with each request.
REFUSED_FOR = 60.0


class PasswordVerdict:
    """Last word of the upstream; `advice` are the options to check, in words."""

    def __init__(self, upstream: str, advice: str, clock: Callable[[], float]) -> None:
        self.accepted = False  # at its last use
        self._upstream = upstream
        self._advice = advice
        self._clock = clock
        self._refused: Credential | None = None
        self._until = float("-inf")
        self._server = ""
        self._refusal = Outage()

    @property
    def refused(self) -> bool:
        """True from a refusal until a password is accepted again."""
        return self._refusal.active

    def refuses(self, login: Credential) -> bool:
        """Return True for a minute after this very password was refused."""
        return self._clock() < self._until and login.same_login(self._refused)

    def note_refusal(self, login: Credential, server: URL) -> None:
        """Warn once until a password is accepted again."""
        now = self._clock()
        self._refused, self._until = login, now + REFUSED_FOR
        self._server, self.accepted = server.host or "", False
        if self._refusal.failed(now) is not None:
            log.warning(
                f"password refused, check {self._advice}",
                upstream=self._upstream,
                account=login.username,
                server=server.host,
            )

    def note_acceptance(self, login: Credential) -> None:
        """End the refusal."""
        self._until, self.accepted = float("-inf"), True
        if self._refusal.ended(self._clock()) is not None:
            log.info("password accepted again", upstream=self._upstream, account=login.username)

    def error(self) -> UpstreamError:
        """Return the error of a request that failed because the password was refused."""
        user = self._refused.username if self._refused is not None else ""
        message = (
            f"{self._upstream}: {self._server} refused the password of user {user}: check {self._advice}"
        )
        return refused(message, 401)


def refused(message: str, status: int) -> UpstreamError:
    """Return the error of a refusal that is about this mirror, and not about a repository."""
    error = UpstreamError(Failure.DENIED, message, status=status)
    error.vague = True
    return error
