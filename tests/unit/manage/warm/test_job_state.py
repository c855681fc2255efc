"""State of scheduled runs."""

from pathlib import Path

import pytest

from mirror.manage.warm.job_state import NAME, JobState, read_states, write_states


def test_states_are_read_as_written(tmp_path: Path) -> None:
    states = {"a": JobState(1.0, 2.0, 3.0, "failed", 4, 1, {"x": "why"}), "b": JobState(5.0)}
    write_states(tmp_path, states)
    assert read_states(tmp_path) == states


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"a": 1}', '{"a": {"due": "x"}}'])
def test_states_that_cannot_be_read_are_none(tmp_path: Path, text: str | None) -> None:
    """Another run begins at its next moment."""
    if text is not None:
        (tmp_path / NAME).write_text(text)
    assert read_states(tmp_path) == {}
