"""The state of a source, as values that JSON knows."""

from typing import Any

from mirror.upstream.source import Source


def state_of(source: Source, now: float) -> dict[str, Any]:
    """Return the state for /readyz: the breaker, and each account's refusal and budget."""
    accounts = [account.state() for account in source.registry.accounts.all]
    return {"source": source.name, "breaker": str(source.health.state(now)), "accounts": accounts}


def details_of(source: Source, now: float) -> dict[str, Any]:
    """Return the state for people: that of /readyz, and what is measured."""
    return {
        **state_of(source, now),
        "latency": source.health.latency,
        "speed": source.health.speed,
        "connections": source.slots.active,
        "accounts": [account.details() for account in source.registry.accounts.all],
    }
