"""Answers to scanners: the statement about diskcache, and the bill of materials."""

import json
import re
import tomllib
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


def test_image_installs_the_packages_that_ci_tests() -> None:
    """Each dependency of the product is locked for the image with hashes, at the version of CI's lock."""
    lock = (ROOT / "config" / "container" / "requirements.txt").read_text()
    tested = set(
        re.findall(r"^([a-z0-9-]+==\S+)", (ROOT / ".ci" / "requirements.txt").read_text(), re.MULTILINE)
    )
    entries = re.split(r"^(?=[a-z0-9-]+==)", lock, flags=re.MULTILINE)[1:]
    locked = {entry.split()[0]: entry for entry in entries if "sys_platform" not in entry}
    assert locked.keys() <= tested
    assert all("--hash=sha256:" in entry for entry in locked.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^A-Za-z0-9-]", each)[0].lower() for each in project["dependencies"]}
    assert names <= {each.partition("==")[0] for each in locked}
    assert "--require-hashes -r requirements.txt" in (ROOT / "config/container/Containerfile").read_text()
