"""Token servers of one upstream: which may be asked, and which of them get the password."""

from collections.abc import Collection

from yarl import URL

from mirror.oci.challenge import Challenge
from mirror.upstream.http.redirect import RedirectRules, origin, parse_url, refusal
from mirror.upstream.http.transport import Transport
from mirror.util.log import redact_url


class UnusableChallenge(Exception):
    """A challenge that cannot be answered; another one may be."""


class Realms:
    """The upstream's own origin and the configured ones."""

    def __init__(self, transport: Transport, configured: Collection[str]) -> None:
        self._transport = transport
        self._origin = origin(transport.url)
        self._configured = {origin(URL(realm)) for realm in configured}
        self._last: tuple[str, URL] | None = None  # realm that was parsed last, as text and as URL

    def trusts(self, url: URL) -> bool:
        """Return True if the password may be sent to `url`."""
        return origin(url) == self._origin or origin(url) in self._configured

    def url_of(self, challenge: Challenge) -> URL:
        """Return the URL of the token server if it may be asked at all; raise UnusableChallenge."""
        realm = self._parsed(challenge.parameters.get("realm", ""))
        secure = self._transport.url.scheme == "https"
        if realm.raw_user is not None or (reason := refusal(self.rules(realm), realm, secure=secure)):
            why = "it names a user" if realm.raw_user is not None else reason
            raise UnusableChallenge(f"token server {redact_url(str(realm))} is not asked: {why}")
        return realm

    def _parsed(self, text: str) -> URL:
        """Return the URL of a realm. Each request asks for the same one."""
        if self._last is None or self._last[0] != text:
            try:
                self._last = text, parse_url(text)
            except ValueError:
                raise UnusableChallenge("the realm of its token server is not a URL") from None
        return self._last[1]

    def rules(self, realm: URL) -> RedirectRules:
        """Return the rules for a realm and its redirects."""
        trusted = origin(realm) in self._configured
        return RedirectRules(self._transport.url, private=self._transport.private or trusted)


def trust_nobody(_: URL) -> bool:
    """Trust no URL: the challenge came from the target of a redirect."""
    return False
