"""Proofs among mirrors that share a secret: each side shows that it has the secret, and neither sends it.

A request has a time, a nonce, and a code (HMAC-SHA256) of these, of the digest and of the range. The answer
has a code of the same nonce, so that a mirror takes bytes from no program that merely has the address. The
bytes are verified by their digest in any case, and are not encrypted.
"""

import hashlib
import hmac
import re
import secrets

# The most seconds by which the clocks of two mirrors may differ. A request that is replayed within them tells
# nothing that its first answer has not.
CLOCK_SECONDS = 300.0

REQUEST_HEADER = "X-Registry-Mirror-Peer"
ANSWER_HEADER = "X-Registry-Mirror-Proof"

# By how many bytes a mirror that follows is behind the one that has followed furthest.
BEHIND_HEADER = "X-Registry-Mirror-Behind"

_REQUEST = re.compile(r"([0-9]{1,12})\.([0-9a-f]{32})\.([0-9a-f]{64})")


class PeerProof:
    """The proofs that one secret makes."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def request(self, about: str, now: float) -> tuple[str, str]:
        """Return the header of a request `about` a digest and a range, and its nonce."""
        nonce = secrets.token_hex(16)
        return f"{int(now)}.{nonce}.{self._code('request', str(int(now)), nonce, about)}", nonce

    def verify_request(self, header: str, about: str, now: float) -> str | None:
        """Return the nonce of a request by a mirror that has the secret; None for any other."""
        match = _REQUEST.fullmatch(header)
        if match is None or abs(int(match[1]) - now) > CLOCK_SECONDS:
            return None
        expected = self._code("request", match[1], match[2], about)
        return match[2] if hmac.compare_digest(expected, match[3]) else None

    def answer(self, nonce: str, about: str) -> str:
        """Return the header of the answer to a request."""
        return self._code("answer", nonce, about)

    def verify_answer(self, header: str, nonce: str, about: str) -> bool:
        """Return whether an answer is by a mirror that has the secret."""
        # Bytes of a header that are no UTF-8 come as surrogates.
        given = header.encode("utf-8", "surrogatepass")
        return hmac.compare_digest(self._code("answer", nonce, about).encode(), given)

    def _code(self, *parts: str) -> str:
        return hmac.new(self._secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()


def subject(digest: str, start: int) -> str:
    """Return the text that a request for a blob from an offset on is about."""
    return f"{digest} {start}"
