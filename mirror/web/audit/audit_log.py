"""The audit log: a line for each request that was refused or has changed a hosted registry, and on request
for each that was served.

A line has the keys of the access log, `identity` and `rule` among them, and as its event what happened:

    denied          by an access rule
    limited         by a limit
    unauthorized    wrong credentials
    pushed          a manifest or a blob was pushed or mounted
    deleted         a tag, a manifest or a blob was deleted
    pulled          a manifest or a blob was served, in full or in part (`audit.pulls`)

A challenge to a client that has shown no credentials is neither: each login begins with one.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO, cast

from mirror.cache.results import Outcome
from mirror.config.audit import IN_LOG, AuditSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.reference import TargetKind
from mirror.util.log import get_logger, mask_secrets, timestamp
from mirror.web.audit.audit_file import AuditFile
from mirror.web.request_log import RequestRecord

log = get_logger("audit")

# Time, in seconds, that the end of the process waits for the last lines.
CLOSE_SECONDS = 1.0

EVENTS = {Outcome.DENIED: "denied", Outcome.LIMITED: "limited"}
# Steps of an upload have the same outcome, and 202 or 204.
CHANGES = {(Outcome.PUSHED, 201): "pushed", (Outcome.DELETED, 202): "deleted"}
CONTENT = (TargetKind.MANIFEST, TargetKind.BLOB)

# An event and the fields of its line.
Entry = tuple[str, Mapping[str, object]]


class AuditLog:
    """The audit log of one process. `write`: takes an event and its fields."""

    def __init__(self, write: Callable[[str, Mapping[str, object]], object], *, pulls: bool) -> None:
        self._write = write
        self._pulls = pulls

    def entry(self, record: RequestRecord, fields: Mapping[str, object] | None = None) -> Entry | None:
        """Return what is recorded about a request; None for nothing. `fields`: of its access line."""
        event = EVENTS.get(record.outcome)
        if event == "denied" and record.status == 401:
            event = "unauthorized"
        if event is None:
            event = CHANGES.get((record.outcome, record.status))
        if event is None and self._pulls and _is_pull(record):
            event = "pulled"
        return None if event is None else (event, {**(fields or record.fields()), "rule": record.rule})

    def note(self, record: RequestRecord, fields: Mapping[str, object]) -> None:
        """Record a request that has ended."""
        if (entry := self.entry(record, fields)) is not None:
            self._write(*entry)

    def repeat(self, entry: Entry, id_: str, client: str, seconds: float, now: float) -> None:
        """Record a request like an earlier one: its id, its client, how long it took, and when it was."""
        event, fields = entry
        taken = round(seconds * 1000, 2)
        changed = {"id": id_, "client": client, "first_byte_ms": taken, "total_ms": taken}
        self._write(event, {**fields, **changed, "timestamp": timestamp(now)})


def _is_pull(record: RequestRecord) -> bool:
    content = record.target is not None and record.target.kind in CONTENT
    return content and record.request.method == "GET" and record.status in (200, 206, 304)


class AuditStream:
    """JSON lines to a stream."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._clock = clock

    def write(self, event: str, fields: Mapping[str, object]) -> None:
        """Write a line, at the time of its fields or now."""
        line = {"component": "audit", "event": event, "timestamp": timestamp(self._clock()), **fields}
        self._stream.write(f"{json.dumps(mask_secrets(None, 'info', line))}\n")


class OpenAudit:
    """The audit log that the options ask for, and its file. `close` at the end of the process."""

    def __init__(self, settings: AuditSettings, metrics: Metrics) -> None:
        """Open the file. Raises OSError that names it."""
        self._file: AuditFile | None = None
        write = log_entry
        if settings.file is not None and settings.file != IN_LOG:
            file = self._file = AuditFile(Path(settings.file))
            metrics.audit_lines_dropped = lambda: file.lines_dropped
            write = AuditStream(cast(TextIO, file)).write
        self.log = AuditLog(write, pulls=settings.pulls)

    def close(self) -> None:
        """Write what is buffered."""
        if self._file is not None:
            self._file.close_file(CLOSE_SECONDS)


def log_entry(event: str, fields: Mapping[str, object]) -> None:
    """Write a line to the log of the server."""
    log.info(event, **fields)
