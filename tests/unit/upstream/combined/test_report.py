"""The state of a source."""

import json

from mirror.upstream.combined.report import details_of, state_of
from mirror.upstream.upstream import Upstream


def test_report_has_what_is_measured_beside_the_state(upstream: Upstream) -> None:
    """Keys of /readyz, which programs read; the details have more of the same source."""
    upstream.own.health.record_success(0.25)
    state, details = state_of(upstream.own, 0.0), details_of(upstream.own, 0.0)
    assert (list(state), state["breaker"]) == (["source", "breaker", "accounts"], "closed")
    assert {**details, "accounts": state["accounts"]}.items() >= {"source": upstream.own.name}.items()
    assert (details["connections"], details["latency"] > 0) == (0, True)
    assert json.dumps(details)
