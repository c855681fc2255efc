"""The audit log: which requests have a line, and what is in the line."""

import json
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from mirror.access.identity import Identity
from mirror.cache.results import Outcome
from mirror.config.audit import AuditSettings
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag, Target, TargetKind, Via
from mirror.web.audit.audit_log import AuditLog, AuditStream, OpenAudit
from mirror.web.request_log import RequestRecord

DIGEST = Digest.of(b"manifest")


def record(
    outcome: Outcome = Outcome.HIT,
    status: int = 200,
    method: str = "GET",
    kind: TargetKind = TargetKind.MANIFEST,
) -> RequestRecord:
    found = RequestRecord(make_mocked_request(method, "/v2/"))
    found.identity = Identity("10.0.0.1", ("user:alice",))
    found.target = Target(kind, Via.PREFIX, "quay.io", Repository("quay.io", "org/app"), Tag("1"))
    found.outcome, found.status, found.digest, found.bytes, found.rule = (
        outcome,
        status,
        DIGEST,
        517,
        "rule 2 (x)",
    )
    return found


def events(pulls: bool, *records: RequestRecord) -> list[str]:
    found: list[str] = []

    def write(event: str, fields: Mapping[str, object]) -> None:
        found.append(event)

    log = AuditLog(write, pulls=pulls)
    for each in records:
        log.note(each, each.fields())
    return found


def test_changes_of_hosted_registries_are_recorded() -> None:
    """The end of a push, and not its steps; a deletion, and not an upload that is given up."""
    changes = [record(Outcome.PUSHED, 201, "PUT"), record(Outcome.DELETED, 202, "DELETE")]
    steps = [record(Outcome.PUSHED, 202, "POST"), record(Outcome.DELETED, 204, "DELETE")]
    assert events(False, *changes, *steps) == ["pushed", "deleted"]


def test_refusals_are_recorded_and_pulls_on_request() -> None:
    refused = [
        record(Outcome.DENIED, 403),
        record(Outcome.LIMITED, 429),
        record(Outcome.DENIED, 401),
    ]
    served = [record(), record(Outcome.MISS, 206, kind=TargetKind.BLOB), record(status=304)]
    others = [
        record(method="HEAD"),
        record(kind=TargetKind.TAGS),
        record(Outcome.ERROR, 404),
        record(Outcome.CHALLENGED, 401),
    ]
    all_of_them = [*refused, *served, *others]
    assert events(False, *all_of_them) == ["denied", "limited", "unauthorized"]
    assert events(True, *all_of_them) == ["denied", "limited", "unauthorized", "pulled", "pulled", "pulled"]


def test_line_says_who_what_by_which_rule_and_how_much() -> None:
    stream = StringIO()
    log = AuditLog(AuditStream(stream, lambda: 0.0).write, pulls=True)
    found = record()
    log.note(found, found.fields())
    line = json.loads(stream.getvalue())
    assert line["component"] == "audit"
    assert line["event"] == "pulled"
    assert (line["client"], line["identity"]) == ("10.0.0.1", ["user:alice"])
    assert (line["upstream"], line["repository"], line["reference"]) == ("quay.io", "org/app", "1")
    assert (line["digest"], line["bytes"], line["status"]) == (str(DIGEST), 517, 200)
    assert (line["rule"], line["id"]) == ("rule 2 (x)", found.id)
    assert line["timestamp"] == "1970-01-01T00:00:00.000000Z"


def test_repeated_request_has_its_own_id_client_and_time() -> None:
    stream = StringIO()
    log = AuditLog(AuditStream(stream).write, pulls=True)
    entry = log.entry(record())
    assert entry is not None
    log.repeat(entry, "ff", "10.0.0.9", 0.001, 60.0)
    line = json.loads(stream.getvalue())
    assert (line["id"], line["client"], line["bytes"]) == ("ff", "10.0.0.9", 517)
    assert (line["total_ms"], line["timestamp"]) == (1.0, "1970-01-01T00:01:00.000000Z")


def test_audit_goes_to_its_file(tmp_path: Path) -> None:
    path, metrics = tmp_path / "audit.log", Metrics()
    opened = OpenAudit(AuditSettings(file=str(path)), metrics)
    found = record(Outcome.DENIED, 403)
    opened.log.note(found, found.fields())
    opened.close()
    assert json.loads(path.read_text())["event"] == "denied"
    assert metrics.audit_lines_dropped() == 0


def test_audit_file_in_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        OpenAudit(AuditSettings(file=str(tmp_path / "nowhere" / "audit.log")), Metrics())


def test_audit_goes_to_the_log_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    opened = OpenAudit(AuditSettings(file="-"), Metrics())
    opened.log.note(record(Outcome.DENIED, 403), {"id": "1"})
    opened.close()
