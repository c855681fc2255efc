"""Selection of what to export."""

from tests.unit.manage.carry.bundles import selected


def test_selection_of_platforms() -> None:
    """None: those that are here; "all": each must be here; else those that are named."""
    here, every, named = (
        selected("x"),
        selected("x", platforms=("all",)),
        selected("x", platforms=("linux/arm",)),
    )
    assert [each.named_platforms for each in (here, every, named)] == [(), (), ("linux/arm",)]
    assert [each.every_platform for each in (here, every, named)] == [False, True, False]
    assert [each.requires_platforms for each in (here, every, named)] == [False, True, True]
