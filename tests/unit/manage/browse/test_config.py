"""The config of an image, of any content."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.manage.browse.config import MOST_CHARACTERS, MOST_ENTRIES, HistoryEntry, read_config

WHOLE = {
    "created": "2026-01-01T00:00:00Z",
    "author": "me",
    "rootfs": {"type": "layers", "diff_ids": []},
    "config": {
        "User": "app",
        "WorkingDir": "/srv",
        "StopSignal": "SIGINT",
        "Entrypoint": ["/run"],
        "Cmd": ["-v"],
        "Env": ["PATH=/bin"],
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"a": "b", "number": 3},
    },
    "history": [{"created_by": "RUN x", "empty_layer": True}, "nonsense"],
}


def test_config_is_read() -> None:
    found = read_config(json.dumps(WHOLE).encode())
    assert found is not None
    assert (found.user, found.workdir, found.stop_signal, found.author) == ("app", "/srv", "SIGINT", "me")
    assert (found.entrypoint, found.command, found.env) == (["/run"], ["-v"], ["PATH=/bin"])
    assert (found.ports, found.volumes, found.labels) == (["80/tcp"], ["/data"], {"a": "b", "number": ""})
    assert found.history == [HistoryEntry("", "RUN x", "", True)]


@pytest.mark.parametrize("data", [None, b"", b"[]", b"{", b'{"rootfs":1}', b"[" * 100_000, b"\xff"])
def test_config_of_another_form_is_none(data: bytes | None) -> None:
    assert read_config(data) is None


def test_config_is_bounded() -> None:
    """The author of an image writes its config."""
    huge = {
        **WHOLE,
        "author": "x" * 100_000,
        "config": {"Env": ["a"] * 5000, "Labels": {str(n): "" for n in range(5000)}},
    }
    found = read_config(json.dumps(huge).encode())
    assert found is not None
    assert (len(found.author), len(found.env), len(found.labels)) == (
        MOST_CHARACTERS,
        MOST_ENTRIES,
        MOST_ENTRIES,
    )


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(st.sampled_from([*WHOLE]), VALUES),
    st.dictionaries(st.sampled_from([*WHOLE["config"]]), VALUES),
)
def test_any_config_is_read_without_an_error(document: dict[str, Any], settings: dict[str, Any]) -> None:
    found = read_config(json.dumps({**document, "rootfs": {}, "config": settings}).encode())
    assert found is not None
