"""Conformance suite of the OCI distribution specification, against a hosted registry: all of it passes."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mirror import Mirror
from tests.pinned import pinned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONFIG = """
[[hosted]]
name = "office"

[[rule]]
name = "pushers"
effect = "allow"
networks = ["127.0.0.0/8"]
repositories = ["office/*"]
actions = ["pull", "list", "push", "delete"]
"""

# What the suite leaves out by default: every one of these is promised here.
BESIDES = {
    "OCI_API_BLOBS_DIGEST_HEADER": "true",
    "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
    "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
}

# The specification as released, and as it will be; what the suite has of it that is not asked of a registry.
VERSIONS = {
    "1.1": {"Manifest put with tag params", "Sparse Manifests", "Tag Param", "Tag Param sha512"},
    "dev": {"Sparse Manifests"},
}


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Mirror]:
    """A mirror with two workers and a hosted name, and no upstream that answers."""
    file = tmp_path / "mirror.toml"
    file.write_text(f"{CONFIG}\n[server]\nworkers = 2\n")
    with Mirror(tmp_path / "mirror", "http://127.0.0.1:1", "--config", file) as running:
        yield running


@pytest.mark.parametrize("version", VERSIONS)
def test_conformance_of_a_hosted_registry(version: str, office: Mirror, tmp_path: Path) -> None:
    """Pass each test of each part of the specification, without an answer of 5xx."""
    suite = pinned()["conformance"]
    if not suite.installed:
        pytest.skip("the conformance suite is not made: .ci/clients")
    env = {
        **os.environ,
        "OCI_REGISTRY": office.address,
        "OCI_TLS": "disabled",
        "OCI_REPO1": "office/conformance/repo1",
        "OCI_REPO2": "office/conformance/repo2",
        "OCI_VERSION": version,
        "OCI_RESULTS_DIR": str(tmp_path / "results"),
        **BESIDES,
    }
    done = subprocess.run(
        [suite.folder / "conformance"], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    report = (tmp_path / "results" / "results.yaml").read_text()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results = dict(re.findall(r"^\s+([^:\n]+): (Pass|Skip|Disabled|FAIL|Error)$", report, re.MULTILINE))
    assert len(results) > 40
    assert {name for name, result in results.items() if result != "Pass"} == VERSIONS[version]
    statuses = [
        json.loads(line)["status"] for line in office.log.read_text().splitlines() if '"access"' in line
    ]
    assert statuses
    assert max(statuses) < 500
