"""Actions; tests/contract/test_pages_actions.py has who may not, and what they do."""

from mirror.web.admin.api.actions import MOST_BUNDLES, MOST_FETCHES, ImageChange


def test_actions_that_take_long_are_few() -> None:
    """Each bundle holds a thread, and each fetch connections."""
    assert MOST_BUNDLES <= 4
    assert MOST_FETCHES <= 8
    assert ImageChange("hub.test/team/app:1").platforms == []
