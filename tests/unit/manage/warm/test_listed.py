"""Entries and notes of lists."""

from mirror.manage.warm.listed import Listed, ListEntry, Note


def test_lists_are_added_up() -> None:
    whole = Listed()
    whole.add(Listed([ListEntry("a", "x:1")], [Note("x:2", "no name")]))
    whole.add(Listed([ListEntry("b", "y:1")]))
    assert [each.text for each in whole.entries] == ["a", "b"]
    assert [str(each) for each in whole.notes] == ["x:2: no name"]
