"""Answers to pushes: where things are, how much has come, and words of refusals."""

import pytest
from aiohttp.test_utils import make_mocked_request

from mirror.cache.results import Outcome
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Target, TargetKind, Via
from mirror.web.hosted import answers
from mirror.web.request_log import RequestRecord

APP = Repository("office", "team/app")


@pytest.mark.parametrize(("offset", "expected"), [(0, "0-0"), (1, "0-0"), (10, "0-9")])
def test_range_is_the_offset_of_the_last_byte(offset: int, expected: str) -> None:
    target = Target(TargetKind.UPLOAD, Via.HOST, "office", APP)
    headers = answers.session_headers(RequestRecord(make_mocked_request("GET", "/v2/")), target, "id", offset)
    assert headers["Range"] == expected
    assert headers["Docker-Upload-UUID"] == "id"


def test_answer_without_content_has_no_length() -> None:
    record = RequestRecord(make_mocked_request("DELETE", "/v2/"))
    assert "Content-Length" not in answers.empty(record, 204, {}, Outcome.DELETED).headers
    assert answers.empty(record, 202, {}, Outcome.DELETED).headers["Content-Length"] == "0"


def test_refusals_have_words_of_their_own() -> None:
    record = RequestRecord(make_mocked_request("PUT", "/v2/"))
    for error, status in (
        (answers.not_allowed(record, "GET, HEAD"), 405),
        (answers.unknown_upload("x"), 404),
        (answers.upload_in_use("x"), 409),
        (answers.wrong_range({}, 5, 9), 416),
        (answers.no_room("it is full"), 507),
        *((answers.too_many(whose), 429) for whose in ("client", "repository", "registry")),
    ):
        assert error.status == status
        assert len(error.message.split()) > 5


def test_created_has_the_digest_beside_the_location() -> None:
    digest = Digest.of(b"x")
    target = Target(TargetKind.UPLOAD, Via.PREFIX, "office", APP)
    response = answers.created(RequestRecord(make_mocked_request("PUT", "/v2/")), target, digest)
    assert response.headers["Location"] == f"/v2/office/team/app/blobs/{digest}"
    assert response.headers["Docker-Content-Digest"] == str(digest)
