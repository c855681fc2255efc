"""Sources of lists."""

from pathlib import Path

import pytest

from mirror.manage.warm.listed import ListError
from mirror.manage.warm.source import is_yaml, read_source, read_text, read_values


def texts(path: Path | str, env: dict[str, str] | None = None) -> list[str]:
    return [each.text for each in read_source(str(path), env or {}).entries]


def test_source_is_told_by_name_and_content(tmp_path: Path) -> None:
    """A plain list, a Compose file, and manifests under any name."""
    (tmp_path / "list.txt").write_text("alpine:3.20\nname:1\n")
    (tmp_path / "compose.yaml").write_text("services:\n  a:\n    image: x:${TAG}${MORE}\n")
    (tmp_path / "pods").write_text("# pods\napiVersion: v1\nkind: Pod\nspec: {containers: [{image: y:1}]}\n")
    assert texts(tmp_path / "list.txt") == ["alpine:3.20", "name:1"]
    assert texts(tmp_path / "compose.yaml", {"TAG": "1", "MORE": ".9"}) == ["x:1.9"]
    assert texts(tmp_path / "pods") == ["y:1"]


def test_source_reads_no_value_that_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the environment nor a file beside the list has a say in a name that goes to a registry."""
    monkeypatch.setenv("SECRET", "environment")
    (tmp_path / ".env").write_text("TOKEN=beside\n")
    compose = tmp_path / "compose.yaml"
    compose.write_text("services:\n  a:\n    image: evil/x:${SECRET}\n  b:\n    image: evil/x:$TOKEN\n")
    found = read_source(str(compose), {})
    assert found.entries == []
    assert [each.reason.partition(":")[0] for each in found.notes] == ["image evil/x", "image evil/x"]
    assert ["SECRET is not set" in found.notes[0].reason, "TOKEN is not set" in found.notes[1].reason] == [
        True
    ] * 2


def test_source_has_values_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "values").write_text("TAG=1\nMORE=2\n")
    assert read_values(str(tmp_path / "values")) == {"TAG": "1", "MORE": "2"}
    with pytest.raises(ListError, match="none cannot be read: No such file"):
        read_values(str(tmp_path / "none"))


def test_source_may_be_standard_input() -> None:
    found = read_source("-", {}, lambda: b"\xef\xbb\xbfalpine\n")
    assert [(each.text, each.place) for each in found.entries] == [("alpine", "standard input:1")]


def test_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other.yaml").write_text("a: 1\n")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    for path, message in (
        ("none", "none cannot be read: No such file"),
        ("binary", "is not text in UTF-8"),
        ("other.yaml", "is neither a Compose file"),
        ("broken.yaml", "is not YAML"),
        ("", "is a folder, and no Helm chart"),
    ):
        with pytest.raises(ListError, match=message):
            read_source(str(tmp_path / path), {})


def test_source_without_content_is_empty() -> None:
    assert read_text("", "x.yaml", {}).entries == []
    assert read_text("# nothing\n", "x", {}).entries == []


def test_yaml_is_told_by_a_line() -> None:
    assert is_yaml("# c\nservices:\n", "x")
    assert is_yaml('{"kind": 1}', "x")
    assert is_yaml("", "x.YML")
    assert not is_yaml("kind:v1\nname:2\n", "x")
