"""Writing of files, and the way back."""

import json
from pathlib import Path

import pytest

from mirror.setup.changes import RECORDS, Changes
from mirror.setup.plan import File, SetupError
from tests.unit.setup.system import System

X, Y = File("/etc/x.json", "new\n"), File("/etc/sub/y/z.crt", "cert\n")


def record(system: System) -> Path:
    return system.root.place(f"{RECORDS}/docker.json")


def test_changes_are_written_and_taken_back(system: System) -> None:
    """Files that were there are as before; others are gone, with the folders made for them."""
    system.write(X.path, "old\n")
    changes = Changes(system.root, "docker")
    changes.write([X, Y])
    assert (system.root.text(X.path), system.root.text(Y.path)) == ("new\n", "cert\n")
    assert changes.undo() == [X.path, Y.path]
    assert (system.root.text(X.path), system.root.text(Y.path)) == ("old\n", None)
    assert not system.root.place("/etc/sub").exists()
    assert not record(system).exists()
    with pytest.raises(SetupError, match="nothing to take back"):
        changes.undo()


def test_changes_of_two_setups_go_back_to_the_first_state(system: System) -> None:
    """A second setup of the mirror does not take the first one's text for the operator's."""
    system.write(X.path, "old\n")
    changes = Changes(system.root, "docker")
    changes.write([X])
    changes.write([File(X.path, "newer\n"), Y])
    changes.undo()
    assert (system.root.text(X.path), system.root.text(Y.path)) == ("old\n", None)


def test_undo_refuses_a_file_that_has_changed_since(system: System) -> None:
    """A change by somebody else is not lost without a question."""
    system.write(X.path, "old\n")
    changes = Changes(system.root, "docker")
    changes.write([X, Y])
    system.write(X.path, "edited\n")
    with pytest.raises(SetupError, match=r"changed since the setup: .*x.json"):
        changes.undo()
    assert (system.root.text(X.path), system.root.text(Y.path)) == ("edited\n", "cert\n")
    changes.undo(force=True)
    assert system.root.text(X.path) == "old\n"


def test_setup_after_a_foreign_change_goes_back_to_that_change(system: System) -> None:
    """An edit between two setups is the state that the second one's undo restores."""
    changes = Changes(system.root, "docker")
    changes.write([X])
    system.write(X.path, "edited\n")
    changes.write([File(X.path, "edited and ours\n")])
    changes.undo()
    assert system.root.text(X.path) == "edited\n"


def test_changes_keep_the_mode_and_follow_a_link(system: System) -> None:
    """A file keeps its mode; a link stays a link. The record, which may have passwords, is private."""
    system.write("/srv/real.json", "old\n")
    real = system.root.place("/srv/real.json")
    real.chmod(0o640)
    place = system.root.place(X.path)
    place.parent.mkdir(parents=True)
    place.symlink_to(real)
    Changes(system.root, "docker").write([X])
    assert (place.is_symlink(), real.read_text(), real.stat().st_mode & 0o777) == (True, "new\n", 0o640)
    assert record(system).stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in real.parent.iterdir()) == ["real.json"]


def test_changes_that_cannot_be_written_change_nothing(system: System) -> None:
    """The first file is as it was when the second fails."""
    system.write(X.path, "old\n")
    system.write("/etc/sub", "a file in the place of a folder")
    with pytest.raises(SetupError, match=r"cannot be written: .*Nothing is changed"):
        Changes(system.root, "docker").write([X, Y])
    assert system.root.text(X.path) == "old\n"


def test_diff_shows_what_is_new(system: System) -> None:
    """A unified diff; of a new file against nothing."""
    system.write(X.path, "old\n")
    lines = list(Changes(system.root, "docker").diff([X, Y]))
    assert {"-old", "+new", "+cert", "--- /dev/null"} <= set(lines)


def test_broken_record_is_named(system: System) -> None:
    """A record that is not one is not taken for an empty one."""
    system.write(f"{RECORDS}/docker.json", "{")
    with pytest.raises(SetupError, match=r"docker.json cannot be read"):
        Changes(system.root, "docker").undo()
    system.write(f"{RECORDS}/docker.json", json.dumps([]))
    with pytest.raises(SetupError, match="nothing to take back"):
        Changes(system.root, "docker").undo()


def test_undo_by_a_record_that_leads_out_of_the_root_writes_nothing(system: System) -> None:
    """A record in an image is what the image's author wrote."""
    outside = system.root.folder.parent / "planted"
    path = f"/../{outside.name}"
    system.write(f"{RECORDS}/docker.json", json.dumps({path: {"before": "planted", "after": ""}}))
    with pytest.raises(SetupError, match="leads out of"):
        Changes(system.root, "docker").undo(force=True)
    assert not outside.exists()
