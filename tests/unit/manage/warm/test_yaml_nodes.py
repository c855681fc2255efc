"""YAML as nodes."""

import pytest

from mirror.manage.warm.listed import ListError
from mirror.manage.warm.yaml_nodes import documents, fields, items, line_of, mappings, text_of


def test_nodes_have_lines_and_merged_fields() -> None:
    """A mapping's own fields win over merged ones; of several merged ones, the first."""
    text = "x: &x {a: 1, b: 2}\ny: &y {a: 3, c: 4}\nz:\n  <<: [*x, *y]\n  b: 5\n"
    (root,) = documents(text, "f")
    z = fields(root)["z"]
    assert {key: text_of(node) for key, node in fields(z).items()} == {"a": "1", "b": "5", "c": "4"}
    assert line_of(fields(z)["b"]) == 5
    assert fields(items(root)) == {}


def test_documents_of_a_file_without_the_empty_ones() -> None:
    found = documents("a: 1\n---\n---\nb: 2\n", "f")
    assert [list(fields(each)) for each in found] == [["a"], ["b"]]
    assert documents("", "f") == []


def test_error_names_the_line() -> None:
    with pytest.raises(ListError, match=r"f:2: is not YAML"):
        documents("a: 1\n b: [", "f")


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "{a: " * 5000])
def test_deep_nesting_is_an_error(text: str) -> None:
    with pytest.raises(ListError):
        documents(text, "f")


def test_bomb_of_aliases_is_walked_once() -> None:
    """Nine levels of nine aliases would be 387 million nodes."""
    lines = ["a0: &a0 {image: x}"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (root,) = documents("\n".join(lines), "f")
    assert len(list(mappings(root))) == 2


def test_bomb_of_merges_ends() -> None:
    """A mapping that merges itself through an alias is no endless loop."""
    (root,) = documents("a: &a\n  <<: *a\n  b: 1\n", "f")
    assert text_of(fields(fields(root)["a"])["b"]) == "1"


def test_many_merges_of_one_mapping_cost_it_once() -> None:
    """Each mapping merges the one before eight times: 8 to the power of 30 walks, or 30."""
    merges = [f"x{each}: &x{each} {{<<: [{', '.join([f'*x{each - 1}'] * 8)}]}}" for each in range(1, 31)]
    (root,) = documents("\n".join(["x0: &x0 {image: a}", *merges]), "f")
    assert text_of(fields(fields(root)["x30"])["image"]) == "a"


def test_tags_of_a_file_construct_nothing() -> None:
    (root,) = documents("image: !!python/object/apply:os.system ['false']\nb: !x y\n", "f")
    assert text_of(fields(root)["image"]) is None
    assert text_of(fields(root)["b"]) == "y"


def test_null_is_no_text() -> None:
    (root,) = documents("a: null\nb: ~\nc:\nd: 3.10\n", "f")
    assert [text_of(each) for each in fields(root).values()] == [None, None, None, "3.10"]
