from yarl import URL

from mirror.upstream.http.request import Hop, OutgoingRequest


def test_request_asks_for_what_it_names_and_may_get_credentials_at_its_first_url() -> None:
    request = OutgoingRequest("GET", "org/app/manifests/1", "org/app")
    assert (request.headers, request.follow_see_other, request.proven) == ({}, True, False)
    hop = Hop(URL("https://registry.test/v2/org/app/manifests/1"))
    assert (hop.own, hop.inside) == (True, True)
