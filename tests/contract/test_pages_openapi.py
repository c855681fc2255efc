"""The API keeps to its OpenAPI document: schemathesis makes requests from it, right and wrong ones."""

import asyncio
import sys
from pathlib import Path

import pytest

from mirror.access.rules import Action
from tests.contract.test_pages_access import token
from tests.fakes.registry import FakeRegistry
from tests.paged import Paged, paged
from tests.running import configured
from tests.wire import Wire

pytestmark = pytest.mark.slow

# Operations that answer with a stream, which schemathesis would read to its end.
STREAMS = "/activity/stream$"

# What is not promised: a wrong value of a parameter that no operation knows is refused, with 422.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,missing_required_header,unsupported_method,allow_header_conformance,ignored_auth"
)

# The seed of all runs: the same requests each time.
SEED = "19"


async def run_schemathesis(mirror: Paged, phases: str, authorization: str | None = None) -> tuple[int, str]:
    """Return status and output of a run. `authorization`: value of that header, None for none."""
    arguments = [
        *("run", f"http://{mirror.admin}/api/v1/openapi.json", "--checks", CHECKS, "--seed", SEED),
        *("--phases", phases, "--max-examples", "4", "--generation-deterministic"),
        *("--exclude-path-regex", STREAMS, "--no-color"),
        *("--suppress-health-check", "all", "--warnings", "off", "--request-timeout", "20"),
        *("--header", "X-Registry-Mirror: 1"),
        *(("--header", f"Authorization: {authorization}") if authorization else ()),
    ]
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return await process.wait(), output.decode()


async def test_api_keeps_to_its_document(tmp_path: Path) -> None:
    """No status, header or answer that the document does not have, and no wrong request accepted.

    An administrator sends each kind of request; a visitor without a token sends some that are made up.
    """
    async with FakeRegistry() as hub, paged(configured(tmp_path, {"docker.io": hub.url})) as mirror:
        hub.add_image("library/alpine", "3.20", [b"layer"])
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", "/v2/library/alpine/manifests/3.20")
            assert (await wire.reply()).status == 200
        admin = (await token(mirror, "me", Action.ADMIN)).partition(": ")[2]
        (status, output), (others_status, others) = await asyncio.gather(
            run_schemathesis(mirror, "coverage", admin), run_schemathesis(mirror, "fuzzing")
        )
        assert status == 0, output[-4000:]
        assert others_status == 0, others[-4000:]
