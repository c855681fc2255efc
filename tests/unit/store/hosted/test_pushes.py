"""Values of pushes."""

from mirror.store.hosted.pushes import NO_QUOTAS, Quotas


def test_quotas_are_without_limit_by_default() -> None:
    assert Quotas() == NO_QUOTAS == Quotas(0, 0)
