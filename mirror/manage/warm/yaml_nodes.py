"""YAML as nodes with their lines: nothing is constructed, so no tag of a file can do anything; pure.

An alias is the same node again, so a file of aliases of aliases takes no more memory than its text; a walk
visits each node once.
"""

from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from mirror.manage.warm.listed import ListError

# The most text that is read: the largest sets of manifests, of CRDs mostly, have a few MiB.
MAX_TEXT = 16 * 1024 * 1024

# Mappings that are merged into one (`<<`): no file has more, but one that is to take long.
MAX_MERGES = 256


def documents(text: str, name: str) -> list[Node]:
    """Return the documents of a file, without those that are empty. Raises ListError."""
    if len(text) > MAX_TEXT:
        raise ListError(f"{name}: is longer than {MAX_TEXT // 1024 // 1024} MiB: split it")
    yaml = YAML(typ="safe", pure=True)
    try:
        return [each for each in yaml.compose_all(text) if isinstance(each, Node) and not _is_null(each)]
    except MarkedYAMLError as error:
        place = name if error.problem_mark is None else f"{name}:{error.problem_mark.line + 1}"
        raise ListError(f"{place}: is not YAML: {error.problem or error.context}") from None
    except YAMLError as error:
        raise ListError(f"{name}: is not YAML: {error}") from None
    except RecursionError:
        raise ListError(f"{name}: is nested too deep") from None


def fields(node: Any) -> dict[str, Node]:
    """Return the values of a mapping by their names, merged ones (`<<`) too; none for another node."""
    return _merged(node, set())


def _merged(node: Any, seen: set[int]) -> dict[str, Node]:
    """Return the values of a mapping that is not in `seen` yet: what came once of it decides already."""
    found: dict[str, Node] = {}
    if not isinstance(node, MappingNode) or id(node) in seen or len(seen) > MAX_MERGES:
        return found
    seen.add(id(node))
    for key, value in node.value:
        if not isinstance(key, ScalarNode):
            continue
        if key.tag != "tag:yaml.org,2002:merge":
            found[key.value] = value
            continue
        for each in items(value) or [value]:
            for name, merged in _merged(each, seen).items():
                found.setdefault(name, merged)
    return found


def items(node: Any) -> list[Node]:
    """Return the items of a sequence; none for another node."""
    return list(node.value) if isinstance(node, SequenceNode) else []


def text_of(node: Any) -> str | None:
    """Return the text of a scalar; None for another node, and for null."""
    return str(node.value) if isinstance(node, ScalarNode) and not _is_null(node) else None


def _is_null(node: Node) -> bool:
    return str(node.tag) == "tag:yaml.org,2002:null"


def line_of(node: Node) -> int:
    """Return the line of a node, from 1."""
    return int(node.start_mark.line) + 1


def mappings(root: Node) -> Iterator[MappingNode]:
    """Yield each mapping below a node, and the node itself, once, in the order of the file."""
    seen: set[int] = set()
    pending: list[Node] = [root]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, MappingNode):
            yield node
            pending += [value for _, value in reversed(node.value)]
        elif isinstance(node, SequenceNode):
            pending += reversed(node.value)
