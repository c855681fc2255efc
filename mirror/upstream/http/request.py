"""A request to an upstream, and the URLs that it is sent to."""

from collections.abc import Mapping

from msgspec import Struct, field
from yarl import URL


class OutgoingRequest(Struct, frozen=True):
    """A request. `path` follows `/v2/` and may have a query; the token is for `repository`."""

    method: str
    path: str
    repository: str
    headers: Mapping[str, str] = field(default_factory=dict)
    # ghcr.io lacks the referrers API and answers with 303 to a web page (docs/upstreams.md).
    follow_see_other: bool = True
    # A digest proves the body: see `Transport.send`.
    proven: bool = False


class Hop(Struct, frozen=True):
    """One of the URLs that a request is sent to, one after another.

    `own`: all URLs so far were paths of the upstream's API, which get credentials. `inside`: all were of the
    upstream's origin.
    """

    url: URL
    own: bool = True
    inside: bool = True
