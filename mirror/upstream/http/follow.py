"""GET requests to token servers: redirects are followed, and the password goes to trusted origins only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from yarl import URL

from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.redirect import STATUSES, RedirectRefused, RedirectRules, next_hop
from mirror.upstream.http.transport import Response, Transport


@dataclass(frozen=True, slots=True)
class Credential:
    """An Authorization header, and a function that tells to which URLs it may go."""

    header: str = field(repr=False)
    may_go_to: Callable[[URL], bool]


async def get_following(
    transport: Transport,
    rules: RedirectRules,
    url: URL,
    headers: Mapping[str, str],
    credential: Credential | None,
) -> tuple[Response, bool]:
    """Return the answer at the end of all redirects, and whether the credential was sent for it.

    Once a redirect has left the URLs that the credential may go to, it goes nowhere any more, not back either
    (invariant 6). Raises UpstreamError, INVALID for a redirect that is not followed.
    """
    visited = [url]
    while True:
        if credential is not None and not credential.may_go_to(visited[-1]):
            credential = None
        authorization = {} if credential is None else {"Authorization": credential.header}
        response = await transport.send("GET", visited[-1], {**headers, **authorization})
        location = response.headers.get("Location")
        if response.status not in STATUSES or location is None:
            return response, credential is not None
        response.release()
        try:
            visited.append(next_hop(rules, visited, location))
        except RedirectRefused as reason:
            message = f"{transport.name}: token server: {reason}"
            raise UpstreamError(Failure.INVALID, message, status=response.status) from None
