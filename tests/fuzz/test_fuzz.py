"""The part of `python -m tests.fuzz` that CI has time for."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from mirror.store.partial.growing import HOLDBACK_BYTES
from tests.fuzz.__main__ import TERMINATED
from tests.fuzz.cases import Case, Expected, Request, Way, case_of
from tests.fuzz.client import Conversation, Heard, Response
from tests.fuzz.content import GOOD, digest_of, image_of
from tests.fuzz.differences import reason_of
from tests.fuzz.oracle import faults_of
from tests.leftovers import children, is_alive

ROOT = Path(__file__).parent.parent.parent
SERVER = ("server", "registry-mirror")


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_fuzz_finds_nothing() -> None:
    """Some thousand requests of a fixed seed, to both parsers: no wrong answer, no error in a log."""
    fuzz = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fuzz", "--seed", "13", "--requests", "12000", "--minutes", "0.7"),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await fuzz.communicate()
    print(output.decode(errors="replace"))
    assert fuzz.returncode == 0


@pytest.mark.timeout(300)
async def test_fuzz_ends_its_mirrors_with_itself() -> None:
    """SIGTERM to a run ends its mirrors and their workers, and says so by the exit status."""
    fuzz = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fuzz", "--seed", "13", "--minutes", "60", "--parser", "c"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert fuzz.stdout is not None
    while not (line := await fuzz.stdout.readline()).startswith(b"mirror c: process "):
        assert line, "the run has ended"
    mirror = int(line.split()[3].rstrip(b","))
    pids = [mirror, *await asyncio.to_thread(lambda: list(children(mirror)))]
    assert len(pids) == 3  # its two workers too
    fuzz.terminate()
    assert await fuzz.wait() == TERMINATED
    assert await asyncio.to_thread(lambda: [pid for pid in pids if is_alive(pid)]) == []


def test_cases_are_the_same_for_the_same_seed() -> None:
    """`--only` repeats a case: its bytes depend on seed and number alone."""
    assert [case_of(7, number) for number in range(60)] == [case_of(7, number) for number in range(60)]
    assert [case_of(7, number).data() for number in range(60)] != [
        case_of(8, number).data() for number in range(60)
    ]


BLOB = next(iter(image_of(GOOD, "library/app1").blobs))
DATA = image_of(GOOD, "library/app1").blobs[BLOB]


def heard(status: int, body: bytes, *headers: tuple[str, str], complete: bool = True) -> Heard:
    fields = (SERVER, ("content-length", str(len(body))), *headers)
    return Heard((Response(status, fields, body, complete),), "open")


RIGHT = heard(200, DATA, ("docker-content-digest", BLOB))
PART = heard(206, DATA[1:3], ("docker-content-digest", BLOB), ("content-range", f"bytes 1-2/{len(DATA)}"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (RIGHT, None),
        (PART, None),
        (heard(200, DATA[:-1] + b"x", ("docker-content-digest", BLOB)), "that are not sha256"),
        (heard(200, DATA, ("docker-content-digest", digest_of(b"x"))), "that are not sha256"),
        (heard(200, b"x", ("docker-content-digest", digest_of(b"x"))), "answer of another request"),
        (heard(200, DATA), "answer of another request"),
        (heard(206, b"xx", *PART.responses[0].headers[2:]), "wrong bytes"),
        (heard(500, b"{}"), "status 500"),
        (heard(404, b"{}"), "status 404"),
        (heard(200, DATA, ("docker-content-digest", BLOB), complete=False), "status 200 with"),
        (Heard((), "silent"), "no answer and no end"),
        (Heard((), "closed"), "1 requests and 0 responses"),
        (Heard(RIGHT.responses, "open", "bytes that are no response: b'x'"), "no response"),
    ],
)
def test_oracle_finds_wrong_answers(answer: Heard, words: str | None) -> None:
    """Each kind of wrong answer to a request for a blob is found, and a right one is not."""
    request = Request(b"", "GET", Expected(frozenset({200, 206}), {BLOB: DATA}))
    found = list(faults_of(Case(0, (request,), Way.IN_TURN), answer))
    assert bool(found) == (words is not None)
    assert words is None or words in found[0]


CUT_HEAD = (
    b"HTTP/1.1 206 Partial Content\r\nServer: registry-mirror\r\nContent-Length: 2\r\n"
    + f"Docker-Content-Digest: {BLOB}\r\nContent-Range: bytes 1-2/{len(DATA)}\r\n\r\n".encode()
)


@pytest.mark.parametrize(
    ("way", "sent", "words"),
    [
        (Way.HALF_CLOSED, b"", None),
        (Way.HALF_CLOSED, DATA[1:2], None),
        (Way.HALF_CLOSED, b"\0", "1 wrong bytes from 1 on"),
        (Way.PIPELINED, b"", "status 206 with 0 of 2 bytes"),
        (Way.IN_TURN, DATA[1:2], "status 206 with 1 of 2 bytes"),
    ],
)
async def test_oracle_takes_a_missing_body_for_no_answer_to_head(
    way: Way, sent: bytes, words: str | None
) -> None:
    """A client that ends its direction has left, and its body may be cut; for all others that is a fault."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CUT_HEAD + sent)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        expected = Expected(frozenset({206}), {BLOB: DATA})
        case = Case(0, (Request(b"GET / HTTP/1.1\r\n\r\n", "GET", expected),), way)
        answered = await Conversation.hold(case, *server.sockets[0].getsockname())
    found = list(faults_of(case, answered))
    assert bool(found) == (words is not None)
    assert words is None or words in found[0]


@pytest.mark.parametrize("odd", [True, False])
def test_oracle_knows_bytes_before_proof(odd: bool) -> None:
    """A wrong part of a large blob is a fault, but for an upstream that sends wrong bytes."""
    data = bytes(HOLDBACK_BYTES + 1)
    span = ("content-range", f"bytes 0-0/{len(data)}")
    answer = heard(206, b"x", ("docker-content-digest", digest_of(data)), span)
    request = Request(b"", "GET", Expected(frozenset({206}), {digest_of(data): data}, odd=odd))
    assert bool(list(faults_of(Case(0, (request,), Way.IN_TURN), answer))) is not odd


def test_oracle_wants_oci_errors() -> None:
    """An error without the OCI document, or with a code that no registry has, is found."""
    request = Request(b"", "GET", Expected(frozenset({404})))
    kind = ("content-type", "application/json")
    for body, right in (
        (b'{"errors":[{"code":"BLOB_UNKNOWN","message":""}]}', True),
        (b'{"errors":[{"code":"ODD"}]}', False),
        (b"<html>", False),
    ):
        found = list(faults_of(Case(0, (request,), Way.IN_TURN), heard(404, body, kind)))
        assert bool(found) != right


@pytest.mark.parametrize(
    ("data", "statuses", "known"),
    [
        (b"GET /v2/\xff HTTP/1.1\r\n\r\n", ([400], [400, 200]), True),
        (b"GET /v2/ HTTP/1.1\r\n\r\n", ([400], [400, 200]), False),
        (b"GET /v2/ HTTP/1.2\r\n\r\n", ([400], [505]), True),
        (b"GET /v2/  HTTP/1.1\r\n\r\n", ([200], [400]), True),
        (b"GET /v2/  HTTP/1.1\r\n\r\n", ([400], [200]), False),
        (b"GET /v2/ HTTP/1.1\r\n\r\n", ([400], [505]), False),
        (b"ODD /v2/ HTTP/1.1\r\n\r\n", ([200, 400], [200, 405, 200]), True),
        (b"GET   /v2/ HTTP/1.1\r\n\r\n", ([200], [400]), True),
        (b"GET   /v2/A/ HTTP/1.1\r\n\r\n", ([400, 200], [400]), True),
        (b"GET   /v2/A/ HTTP/1.1\r\n\r\n", ([400], [400, 200]), False),
        (b"GET   /v2/ HTTP/1.1\r\n\r\n", ([200, 200], [200]), False),
        (b"get /v2/A/ HTTP/1.1\r\n\r\n", ([400], [400, 200]), True),
        (b"get /v2/A/ HTTP/1.1\r\n\r\n", ([400, 200], [400]), False),
        (b"GET /v2/A/ HTTP/1.1\r\nProxy-Connection: close\r\n\r\n", ([400], [400, 200]), True),
        (b"\r\r\n\r\nGET /v2/ HTTP/1.1\r\n\r\n", ([200, 200], [400]), True),
        (b"\r\n\rGET /v2/ HTTP/1.1\r\n\r\n", ([200], [400]), True),
        (b"\r\nGET /v2/ HTTP/1.1\r\n\r\n", ([200], [400]), False),
        (b"GET HTTPS://a|b/v2/ HTTP/1.1\r\n\r\n", ([400], [200]), True),
        (b"GET HTTPS://a/v2/ HTTP/1.1\r\n\r\n", ([400], [200]), False),
        (b"QUERY  /v2/\r\nHost: a\r\n\r\n", ([200, 505], [200, 400]), True),
        (b"CONNECT /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", ([405], [400]), True),
        (b"CONNECT /v2/ HTTP/1.1\r\nHost: a\r\n\r\n", ([405], [400]), False),
    ],
)
def test_differences_of_parsers(data: bytes, statuses: tuple[list[int], list[int]], known: bool) -> None:
    """A difference is known by its bytes and by its statuses."""
    assert (reason_of(data, *statuses) is not None) == known
