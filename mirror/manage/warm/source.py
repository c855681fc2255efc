"""Sources of lists: a file of some kind becomes entries and notes.

A folder with a Chart.yaml, or a packed chart, is a Helm chart. A file that is YAML by its name or its first
words is a Compose file or has Kubernetes manifests. All else is a plain list. `-` is standard input.
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from mirror.manage.warm.listed import Listed, ListError
from mirror.manage.warm.plain import read_plain

STANDARD_INPUT = "-"

_YAML_NAME = re.compile(r"\.(ya?ml|json)$", re.IGNORECASE)
# A line that only YAML or JSON has, of those that may come first.
_YAML_LINE = re.compile(
    r"^(---|%YAML|\{|(apiVersion|kind|services|version|name|x-[\w-]+)\s*:(\s|$))", re.MULTILINE
)

# The most bytes that are read of a list.
MAX_BYTES = 32 * 1024 * 1024


def read_source(
    path: str, values: Mapping[str, str], read_input: Callable[[], bytes] | None = None
) -> Listed:
    """Return the entries of a file, of a chart, or of standard input. Raises ListError.

    `values`: those that the operator gives to variables in Compose files.
    """
    if path == STANDARD_INPUT:
        data = (read_input or _standard_input)()
        return read_text(_decoded(data, "standard input"), "standard input", values)
    file = Path(path)
    try:
        from mirror.manage.warm import helm

        if helm.is_chart(file):
            return _read_rendered(helm.render(file), path)
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise ListError(f"{path} is a folder, and no Helm chart: name the files in it") from None
    except OSError as error:
        raise ListError(f"{path} cannot be read: {error.strerror}") from None
    return read_text(_decoded(data, path), path, values)


def read_text(text: str, name: str, values: Mapping[str, str]) -> Listed:
    """Return the entries of a text of any kind. Raises ListError."""
    if not is_yaml(text, name):
        return read_plain(text, name)
    from mirror.manage.warm import compose, kubernetes
    from mirror.manage.warm.yaml_nodes import documents

    roots = documents(text, name)
    if compose.is_compose(roots):
        return compose.read_compose(roots[0], name, values)
    if kubernetes.is_kubernetes(roots):
        return kubernetes.read_kubernetes(roots, name)
    if not roots:
        return Listed()
    raise ListError(f"{name}: is neither a Compose file (services) nor a Kubernetes manifest (kind)")


def is_yaml(text: str, name: str) -> bool:
    """Return whether a text is YAML or JSON: by its name, or else by a line of it."""
    return bool(_YAML_NAME.search(name) or _YAML_LINE.search(text))


def _read_rendered(text: str, name: str) -> Listed:
    from mirror.manage.warm.kubernetes import read_kubernetes
    from mirror.manage.warm.yaml_nodes import documents

    rendered = f"helm template {name}"
    return read_kubernetes(documents(text, rendered), rendered)


def read_values(path: str) -> dict[str, str]:
    """Return the values of variables that a file sets, as `.env` does. Raises ListError."""
    from mirror.manage.warm.interpolation import read_env

    try:
        with Path(path).open("rb") as file:
            return read_env(_decoded(file.read(MAX_BYTES + 1), path))
    except OSError as error:
        raise ListError(f"{path} cannot be read: {error.strerror}") from None


def _standard_input() -> bytes:
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def _decoded(data: bytes, name: str) -> str:
    if len(data) > MAX_BYTES:
        raise ListError(f"{name}: is longer than {MAX_BYTES // 1024 // 1024} MiB: split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ListError(f"{name}: is not text in UTF-8") from None
