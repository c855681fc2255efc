"""Writing of a plan's files with a record of what was there, and the way back."""

import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mirror.setup.plan import File, Root, SetupError
from mirror.util.durable import create_file, sync_folder

# Folder of the records, below the root of the system.
RECORDS = "/var/lib/registry-mirror/setup"


class Changes:
    """The files of one client that a setup has changed.

    The record has each file's text as it was before, and the hash of the text that was written: a file that
    somebody has changed since is not taken back without a question.
    """

    def __init__(self, root: Root, client: str, folder: str = RECORDS) -> None:
        self._root = root
        self._record = root.place(f"{folder}/{client}.json")

    def diff(self, files: Sequence[File]) -> Iterator[str]:
        """Yield the lines of a unified diff of what is there and what the plan has."""
        for file in files:
            before = self._root.text(file.path)
            name = str(self._root.place(file.path))
            yield from (
                line.rstrip("\n")
                for line in difflib.unified_diff(
                    (before or "").splitlines(keepends=True),
                    file.text.splitlines(keepends=True),
                    "/dev/null" if before is None else name,
                    name,
                )
            )

    def write(self, files: Sequence[File]) -> None:
        """Record what is there, then write. Raises SetupError; nothing is changed then."""
        known = self._load()
        done: list[tuple[File, str | None]] = []
        try:
            for file in files:
                before = self._root.text(file.path)
                entry = known.get(file.path)
                if entry is None or before is None or entry["after"] != _hash(before):
                    known[file.path] = entry = {"before": before, "after": ""}
                entry["after"] = _hash(file.text)
            self._save(known)
            for file in files:
                done.append((file, self._root.text(file.path)))
                _put(self._root.place(file.path), file.text, file.mode)
        except OSError as error:
            for file, before in reversed(done):
                with suppress(OSError):
                    self._restore(file.path, before)
            where = error.filename or self._record
            raise SetupError(f"{where} cannot be written: {error.strerror}. Nothing is changed") from None

    def undo(self, *, force: bool = False) -> list[str]:
        """Restore the files as they were; return their paths.

        Raises SetupError if there is nothing to restore, or if a file has changed since and not `force`.
        """
        known = self._load()
        if not known:
            raise SetupError(f"there is nothing to take back: {self._record} has no record")
        changed = [path for path, each in known.items() if self._has_changed(path, each)]
        if changed and not force:
            places = ", ".join(str(self._root.place(each)) for each in changed)
            raise SetupError(
                f"changed since the setup: {places}. --force restores what was there before all the same"
            )
        try:
            for path, each in known.items():
                self._restore(path, each["before"])
            self._record.unlink()
        except OSError as error:
            raise SetupError(f"{error.filename} cannot be restored: {error.strerror}") from None
        return list(known)

    def _has_changed(self, path: str, entry: dict[str, Any]) -> bool:
        text = self._root.text(path)
        return text != entry["before"] and (text is None or _hash(text) != entry["after"])

    def _restore(self, path: str, before: str | None) -> None:
        place = self._root.place(path)
        if before is not None:
            _put(place, before, 0o644)
            return
        place.unlink(missing_ok=True)
        with suppress(OSError):  # of the folders, those that are empty now
            for folder in (place.parent, place.parent.parent):
                folder.rmdir()

    def _load(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self._record.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
            raise SetupError(f"the record {self._record} cannot be read: {reason}") from None
        return found if isinstance(found, dict) else {}

    def _save(self, known: dict[str, dict[str, Any]]) -> None:
        _put(self._record, json.dumps(known, indent=1) + "\n", 0o600)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _put(path: Path, text: str, mode: int) -> None:
    """Replace a file at once. The file keeps its mode and owner; of a link the target is replaced."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.registry-mirror")
    try:
        with create_file(scratch, mode) as file:
            file.write(text.encode())
            file.flush()
            os.fchmod(file.fileno(), path.stat().st_mode & 0o7777 if path.exists() else mode)
            if path.exists() and os.geteuid() == 0:
                os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)
            os.fsync(file.fileno())
        scratch.rename(path)
        sync_folder(path.parent)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
