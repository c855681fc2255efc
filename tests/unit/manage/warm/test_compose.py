"""Images of Compose files."""

from mirror.manage.warm.compose import is_compose, read_compose
from mirror.manage.warm.listed import Listed
from mirror.manage.warm.yaml_nodes import documents

FILE = """\
include:
  - other.yaml
x-base: &base
  image: "redis:${REDIS:-7}"
services:
  web:
    image: nginx:$NGINX
  cache:
    <<: *base
  db:
    image: postgres:${PG}
  own:
    build: .
    image: own:1
  child:
    extends:
      file: base.yaml
      service: x
  nothing:
    ports: []
"""


def listed(text: str) -> Listed:
    (root,) = documents(text, "c.yaml")
    return read_compose(root, "c.yaml", {"NGINX": "1.27"})


def test_compose_file_has_the_images_of_its_services() -> None:
    """Variables are replaced, and merged fields count."""
    assert [(each.text, each.place) for each in listed(FILE).entries] == [
        ("nginx:1.27", "c.yaml:7"),
        ("redis:7", "c.yaml:4"),
    ]


def test_compose_parts_that_are_not_taken_are_named() -> None:
    """A service that is built needs no image; all else may be an image that is missing."""
    notes = [(str(each), each.wrong) for each in listed(FILE).notes]
    assert [text.partition(": ")[0] for text, _ in notes] == [
        "c.yaml:2",
        "c.yaml:11",
        "c.yaml:13",
        "c.yaml:16",
        "c.yaml:20",
    ]
    assert [wrong for _, wrong in notes] == [True, True, False, True, True]
    assert "include is not followed" in notes[0][0]
    assert "PG is not set" in notes[1][0]
    assert "extends" in notes[3][0]


def test_compose_file_is_told_by_its_services() -> None:
    assert is_compose(documents(FILE, "c"))
    assert not is_compose(documents("apiVersion: v1\nkind: X\nservices: {}\n", "c"))
    assert not is_compose(documents("a: 1\n", "c"))
