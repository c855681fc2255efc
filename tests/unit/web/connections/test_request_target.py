"""Targets of requests: path and host in all forms, and what is no target."""

import pytest
from aiohttp.test_utils import make_mocked_request

from mirror.oci.errors import RegistryError
from mirror.web.connections.request_target import QUERY_BYTES, check_target, path_and_host


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("/v2/x?n=1", "/v2/x", "mirror.lan"),
        ("http://other.lan:5000/v2/x?n=1", "/v2/x", "other.lan:5000"),
        ("HTTPS://other.lan", "", "other.lan"),
    ],
)
def test_target_in_absolute_form_has_the_host(target: str, path: str, host: str) -> None:
    assert path_and_host(make_mocked_request("GET", target, {"Host": "mirror.lan"})) == (path, host)


@pytest.mark.parametrize(("target", "status"), [("/v2/\udcff", 400), (f"/v2/?a={'b' * QUERY_BYTES}", 414)])
def test_target_that_no_request_has_is_refused(target: str, status: int) -> None:
    with pytest.raises(RegistryError) as refused:
        check_target(make_mocked_request("GET", target))
    assert refused.value.status == status
    check_target(make_mocked_request("GET", "/v2/?a=b"))
