"""The table of docs/hosted.md: each test of the specification is in it, and there is no other."""

import re
from pathlib import Path

CONTRACT = Path(__file__).parent.parent / "contract"
DOCUMENT = Path(__file__).parents[2] / "docs" / "hosted.md"


def test_table_of_the_specification_names_every_test() -> None:
    code = "".join(
        (CONTRACT / name).read_text()
        for name in ("test_push_conformance.py", "test_push_conformance_management.py")
    )
    section = DOCUMENT.read_text().partition("## Conformance")[2].partition("\n## ")[0]
    named = re.findall(r"`(test_\w+)`", section)
    assert sorted(named) == sorted(re.findall(r"^async def (test_\w+)", code, re.MULTILINE))
