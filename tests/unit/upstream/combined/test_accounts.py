"""Accounts of an upstream at all its sources."""

import pytest

from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.health import FAILURES
from mirror.upstream.rate_limit import PLENTY
from mirror.upstream.upstream import Upstream


def test_upstream_without_an_account_has_nothing_to_guard(upstream: Upstream) -> None:
    """No rate limit has been reported, so none is counted."""
    accounts = upstream.accounts
    assert (accounts.configured, accounts.guards, accounts.admits_guests) == (False, False, False)
    assert (accounts.counts_pulls, accounts.rate_limit_reading()) == (False, None)
    assert accounts.budget_level("library/x") is PLENTY


async def test_rights_are_not_asked_for_while_the_own_endpoint_is_silent(upstream: Upstream) -> None:
    error = UpstreamError(Failure.TIMEOUT, "silence")
    error.unanswered = True
    upstream.own.record_failure(error, FAILURES)
    with pytest.raises(UpstreamError, match="tried again soon"):
        await upstream.accounts.grant("library/x", "t", None)
