"""GET requests to token servers: redirects are followed, and the password goes to trusted origins only."""

from collections.abc import Callable, Mapping

from yarl import URL

from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.redirect import STATUSES, RedirectRefused, RedirectRules, next_hop
from mirror.upstream.http.transport import Response, Transport


async def get_following(
    transport: Transport,
    rules: RedirectRules,
    url: URL,
    headers: Mapping[str, str],
    authorization: str | None,
    is_trusted: Callable[[URL], bool],
) -> tuple[Response, bool]:
    """Return the answer at the end of all redirects, and whether the authorization was sent for it.

    Once a redirect has left the URLs that are trusted with it, neither the authorization nor the client
    certificate goes anywhere any more, not back either (invariant 6).

    Raises UpstreamError, INVALID for a redirect that is not followed.
    """
    visited = [url]
    inside = True
    while True:
        inside = inside and is_trusted(visited[-1])
        shown = {"Authorization": authorization} if inside and authorization is not None else {}
        response = await transport.send("GET", visited[-1], {**headers, **shown}, identified=inside)
        location = response.headers.get("Location")
        if response.status not in STATUSES or location is None:
            return response, bool(shown)
        response.release()
        try:
            visited.append(next_hop(rules, visited, location))
        except RedirectRefused as reason:
            message = f"{transport.name}: token server: {reason}"
            raise UpstreamError(Failure.INVALID, message, status=response.status) from None
