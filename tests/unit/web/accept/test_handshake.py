"""Failed handshakes: which are about the client's certificate, and in what words."""

import ssl

import pytest
from structlog.testing import capture_logs

from mirror.web.accept.handshake import refusal, report


def verification_error(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "verification failed")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (10, "it has expired"),
        (20, "no authority in server.client_ca"),
        (23, "it is revoked"),
        (99, "as OpenSSL"),
    ],
)
def test_refusal_says_what_is_wrong_with_a_certificate(code: int, reason: str) -> None:
    """Words of the configuration stand before OpenSSL's."""
    assert reason in str(refusal(verification_error(code, "as OpenSSL has it")))


def test_other_errors_are_no_refusal_of_a_certificate() -> None:
    """Scanners cause them all day: such a line is for debugging only."""
    with capture_logs() as lines:
        for error in (ConnectionResetError("left"), ssl.SSLError(1, "wrong version"), TimeoutError()):
            assert refusal(error) is None
            assert not report(error, "192.0.2.7")
    assert not [each for each in lines if each["log_level"] != "debug"]


def test_refused_certificate_is_logged_with_the_address() -> None:
    with capture_logs() as lines:
        assert report(verification_error(9, "x"), "192.0.2.7")
    assert [(each["event"], each["client"], each["reason"]) for each in lines] == [
        ("client certificate refused", "192.0.2.7", "it is not valid yet")
    ]
