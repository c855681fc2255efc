"""Answers to scanners: the statement about diskcache, and the bill of materials."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
VEX = ROOT / "docs" / "registry-mirror.openvex.json"


def test_vex_statement_is_about_the_locked_diskcache() -> None:
    """Another version of diskcache needs another look, and then another statement."""
    document = json.loads(VEX.read_text())
    (statement,) = document["statements"]
    (locked,) = re.findall(
        r"^diskcache==(\S+)", (ROOT / ".ci" / "requirements.txt").read_text(), re.MULTILINE
    )
    (product,) = statement["products"]
    assert product["subcomponents"] == [{"@id": f"pkg:pypi/diskcache@{locked}"}]
    assert statement["status"] == "not_affected"


def test_vex_statement_names_files_and_tests_that_exist() -> None:
    text = json.loads(VEX.read_text())["statements"][0]["impact_statement"]
    files = re.findall(r"[a-z_]+/[a-z_/]+\.py", text)
    assert len(files) == 4
    for each in files:
        assert (ROOT / each).is_file(), each
    sources = "".join((ROOT / each).read_text() for each in files)
    for name in re.findall(r"\btest_[a-z_]+(?!\w|\.py)", text):
        assert f"def {name}(" in sources or any(name in each for each in files), name


def test_bill_of_materials_is_made_from_the_lock() -> None:
    script = (ROOT / ".ci" / "sbom").read_text()
    assert ".ci/requirements.txt" in script
    assert re.search(r"cyclonedx-bom==\d", script)
