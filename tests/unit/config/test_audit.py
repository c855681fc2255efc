"""The options of the audit log."""

import pytest

from mirror.config.audit import AuditSettings


@pytest.mark.parametrize("file", [None, "-", "/var/log/audit.log"])
def test_audit_file_is_a_path_or_the_log(file: str | None) -> None:
    assert AuditSettings.model_validate({"file": file}).file == file


@pytest.mark.parametrize("file", ["", "audit.log", "./audit.log", "~/audit.log"])
def test_audit_file_without_an_absolute_path_is_refused(file: str) -> None:
    """A service's current folder is nothing that an operator thinks of."""
    with pytest.raises(ValueError, match="no absolute path"):
        AuditSettings.model_validate({"file": file})
