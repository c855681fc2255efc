"""Client errors: the failure table of docs/architecture.md, for every way a client can name the upstream."""

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import Code
from mirror.oci.reference import Repository, Tag, Target, TargetKind, Via
from mirror.store.errors import StoreError
from mirror.upstream.errors import Failure, UpstreamError
from mirror.web.client_errors import DEFAULT_RETRY_AFTER, WhenUnavailable, client_error


def target(via: Via, kind: TargetKind = TargetKind.MANIFEST) -> Target:
    reference = Digest.of(b"x") if kind is TargetKind.BLOB else Tag("t")
    return Target(kind, via, "docker.io", Repository("docker.io", "library/x"), reference)


HONEST = {
    Failure.NOT_FOUND: 404,
    Failure.DENIED: 404,
    Failure.OFFLINE: 404,
    Failure.RATE_LIMITED: 429,
    Failure.UNREACHABLE: 502,
    Failure.SERVER_ERROR: 502,
    Failure.INVALID: 502,
    Failure.TIMEOUT: 504,
}


GONE = (Failure.UNREACHABLE, Failure.SERVER_ERROR)


@pytest.mark.parametrize("failure", Failure)
@pytest.mark.parametrize("via", Via)
@pytest.mark.parametrize("when", ["auto", "next", "honest"])
def test_client_error_by_failure_and_route(failure: Failure, via: Via, when: WhenUnavailable) -> None:
    """A client with another registry to try gets 404, any other the status, or 424. Never a challenge."""
    error = client_error(UpstreamError(failure, "what happened"), target(via), when)
    honest = when == "honest" or (when == "auto" and via is Via.PREFIX)
    status = 424 if when == "auto" and failure in GONE else HONEST[failure]
    assert error.status == (status if honest else 404)
    assert error.message == "what happened"
    assert error.status not in (401, 403)
    assert ("Retry-After" in error.headers) == (error.status == 429)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (TargetKind.MANIFEST, Code.MANIFEST_UNKNOWN),
        (TargetKind.BLOB, Code.BLOB_UNKNOWN),
        (TargetKind.TAGS, Code.NAME_UNKNOWN),
        (TargetKind.REFERRERS, Code.MANIFEST_UNKNOWN),
    ],
)
def test_client_error_code_by_kind_of_content(kind: TargetKind, code: Code) -> None:
    """Final codes: with UNKNOWN or UNAVAILABLE some clients would ask the same again.

    Referrers are not NAME_UNKNOWN: oras then gives up, where it should look for the referrers tag.
    """
    error = client_error(UpstreamError(Failure.UNREACHABLE, "x"), target(Via.ROOT, kind), "auto")
    assert (error.code, error.status) == (code, 404)


@pytest.mark.parametrize(("seconds", "header"), [(7.4, "8"), (0.2, "1"), (None, str(DEFAULT_RETRY_AFTER))])
def test_rate_limit_error_has_retry_after(seconds: float | None, header: str) -> None:
    """Retry-After is the upstream's, rounded up, or the default."""
    limited = UpstreamError(Failure.RATE_LIMITED, "x", retry_after=seconds)
    error = client_error(limited, target(Via.PREFIX), "auto")
    assert error.headers == {"Retry-After": header}


def test_store_error_status() -> None:
    """The prefix gives 503, a mirror request 404, so that the pull goes on at another registry."""
    for via, status in ((Via.PREFIX, 503), (Via.NS, 404)):
        error = client_error(StoreError("disk full"), target(via), "auto")
        assert error.status == status
        assert "cache" in error.message
