"""Token servers: which get the password, and which are asked at all."""

import pytest
from yarl import URL

from mirror.metrics.metrics import Metrics
from mirror.oci.challenge import Challenge
from mirror.upstream.account.realms import Realms, UnusableChallenge, trust_nobody
from mirror.upstream.http.transport import Transport
from tests.fakes.upstream import settings


@pytest.fixture
def realms() -> Realms:
    chosen = settings("https://registry.test", realms=["https://auth.test"])
    return Realms(Transport(chosen, Metrics()), chosen.realms)


def test_realms_trust_the_own_origin_and_configured_ones(realms: Realms) -> None:
    """Neither another port nor another host of the same domain."""
    for url in ("https://registry.test/token", "https://auth.test/x", "https://auth.test:443/"):
        assert realms.trusts(URL(url))
    for url in ("http://registry.test/", "https://registry.test:8443/", "https://x.auth.test/"):
        assert not realms.trusts(URL(url))
    assert not trust_nobody(URL("https://registry.test/token"))


def test_realms_give_the_url_of_a_challenge(realms: Realms) -> None:
    """Another origin may be asked, anonymously; one over http may not."""
    challenge = Challenge("bearer", {"realm": "https://other.test/token"})
    assert str(realms.url_of(challenge)) == "https://other.test/token"
    with pytest.raises(UnusableChallenge, match="leaves https"):
        realms.url_of(Challenge("bearer", {"realm": "http://other.test/token"}))


def test_realms_that_are_configured_may_be_private(realms: Realms) -> None:
    """The operator chose them."""
    assert realms.rules(URL("https://auth.test/token")).private
    assert not realms.rules(URL("https://other.test/token")).private
