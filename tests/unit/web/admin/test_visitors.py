"""Visitors of the pages: a change that may come from elsewhere is refused; who they are: contract tests."""

from typing import cast

import pytest
from aiohttp import web
from multidict import CIMultiDict

from mirror.web.admin.visitors import CHANGE_HEADER, FrontDoor
from mirror.web.identity.gate import Gate

HEADERS = {CHANGE_HEADER: "1", "Host": "mirror.lan:5002"}


class Sent:
    """The headers of a request."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = CIMultiDict(headers)


@pytest.mark.parametrize(
    ("further", "forged"),
    [
        ({}, False),
        ({"Origin": "http://mirror.lan:5002", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Origin": "https://mirror.lan:5002"}, False),
        ({"Origin": "http://mirror.lan:8080"}, True),
        ({"Origin": "http://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
    ],
)
def test_change_from_a_page_elsewhere_is_forged(further: dict[str, str], forged: bool) -> None:
    """The header that no form can send, and an origin that is this one, if there is one."""
    door = FrontDoor(cast(Gate, None), [])
    request = cast(web.BaseRequest, Sent({**HEADERS, **further}))
    assert door.is_forged(request) is forged
    del request.headers[CHANGE_HEADER]  # type: ignore[attr-defined]
    assert door.is_forged(request) is True
