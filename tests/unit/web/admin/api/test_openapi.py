"""The document of the API: whole, and about every operation."""

import json
import re
from pathlib import Path
from typing import Any

from tests.paged import paged
from tests.running import configured


def references(value: Any) -> set[str]:
    return set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(value)))


async def test_document_describes_every_operation_and_type(tmp_path: Path) -> None:
    """Names of operations are unique, references lead somewhere, and each operation tells its errors."""
    async with paged(configured(tmp_path, {"hub.test": "http://127.0.0.1:9"})) as mirror:
        document = await mirror.api("openapi.json")
        for path in document["paths"]:
            reply = await mirror.ask(path, method="OPTIONS")
            assert reply.status == 405
            assert {each.strip().lower() for each in reply.header("allow").split(",")} == {
                *document["paths"][path]
            }
    assert document["openapi"].startswith("3.1")
    assert references(document) <= set(document["components"]["schemas"])
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    names = [each["operationId"] for each in operations]
    assert len(names) == len(set(names)) > 8
    for each in operations:
        assert {"200", "401", "403", "422"} <= set(each["responses"])
        assert each["summary"]
