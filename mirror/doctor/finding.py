"""Findings of checks: what is so, why it matters, and the one line that mends it."""

from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace


class Severity(StrEnum):
    """Severity of a finding, the mildest first."""

    FINE = "fine"
    WARNING = "warning"
    ERROR = "error"


# Exit status of the command by the worst severity of all findings.
STATUS = {Severity.FINE: 0, Severity.WARNING: 1, Severity.ERROR: 2}


class Diagnosis(Struct, frozen=True):
    """Result of one check about `subject`: an upstream, a folder, an address, a client.

    `why` and `mend` are empty for what is fine.
    """

    subject: str
    severity: Severity
    what: str
    why: str = ""
    mend: str = ""


def fine(subject: str, what: str) -> Diagnosis:
    """Return a finding without anything to mend."""
    return Diagnosis(subject, Severity.FINE, what)


def warning(subject: str, what: str, why: str, mend: str) -> Diagnosis:
    """Return a finding of something that works, and may not for long or not well."""
    return Diagnosis(subject, Severity.WARNING, what, why, mend)


def error(subject: str, what: str, why: str, mend: str) -> Diagnosis:
    """Return a finding of something that does not work."""
    return Diagnosis(subject, Severity.ERROR, what, why, mend)


def merged(findings: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Return findings of the same kind as one, with the first one's remedy.

    Eleven upstreams have one broken network between them.
    """
    found: dict[Diagnosis, list[Diagnosis]] = {}
    for each in findings:
        found.setdefault(replace(each, subject="", mend=""), []).append(each)
    return [
        replace(same[0], subject=", ".join(dict.fromkeys(each.subject for each in same)))
        for same in found.values()
    ]


def status(findings: Iterable[Diagnosis]) -> int:
    """Return the exit status: 0 if all is fine, 1 for warnings, 2 for errors."""
    return max((STATUS[each.severity] for each in findings), default=0)
