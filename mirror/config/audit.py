"""The options of `[audit]`: what is recorded about who was refused, who pushed, and who pulled what."""

from typing import Annotated

from mirror.config.validation import After, Doc, Settings

# The value of `file` for lines in the log of the server.
IN_LOG = "-"


def _check_file(value: str | None) -> str | None:
    if value is not None and value != IN_LOG and not value.startswith("/"):
        raise ValueError(
            f"{value!r:.80} is no absolute path: write /var/log/registry-mirror/audit.log, or - for the log"
        )
    return value


class AuditSettings(Settings, frozen=True, kw_only=True):
    """The audit log: one line for each request that was refused, and for each push and deletion."""

    file: Annotated[
        str | None,
        After(_check_file),
        Doc(
            'File of the audit log, which is opened again when it was moved or removed; "-" for the log of '
            "the server. Without it there is no audit log.",
            examples=["/var/log/registry-mirror/audit.log"],
        ),
    ] = None
    pulls: Annotated[bool, Doc("Record each manifest and blob that was served, too.")] = False
