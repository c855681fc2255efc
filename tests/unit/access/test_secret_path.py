"""Secret paths: what is behind the secret, and that the secret is not shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.access.secret_path import SecretPath, misplaced_secret, secret_path, shown_path, without_secret
from mirror.access.tokens import PREFIX, with_checksum

S = with_checksum(PREFIX + "abcd2345" * 6 + "abcd")  # names of tests are the same in each worker


@pytest.mark.parametrize(
    ("path", "secret", "prefix", "rest"),
    [
        (f"/t/{S}/v2/", S, f"/t/{S}", "/v2/"),
        (f"/t/{S}/v2/org/app/manifests/1", S, f"/t/{S}", "/v2/org/app/manifests/1"),
        (f"/t/{S}/quay.io/v2/org/app/tags/list", S, f"/t/{S}", "/quay.io/v2/org/app/tags/list"),
        (f"/t/{S}", S, f"/t/{S}", ""),
        (f"/t/{S}/", S, f"/t/{S}", "/"),
        ("/t/wrong/v2/", "wrong", "/t/wrong", "/v2/"),
        (f"/v2/t/{S}/quay.io/org/app/manifests/1", S, f"/v2/t/{S}", "/v2/quay.io/org/app/manifests/1"),
        ("/v2/t/rmt_x/docker.io/a/blobs/b", "rmt_x", "/v2/t/rmt_x", "/v2/docker.io/a/blobs/b"),
    ],
)
def test_secret_path_is_split(path: str, secret: str, prefix: str, rest: str) -> None:
    """A text that is no token is a wrong secret all the same, in front of the API."""
    assert secret_path(path) == SecretPath(secret, prefix, rest)
    assert without_secret(path, prefix) == rest
    assert without_secret(rest, "") == rest
    assert secret not in repr(secret_path(path))


@pytest.mark.parametrize(
    "path", ["/v2/", "/t", "/t/", "/t/v2/", "/t/v2/org/app/tags/list", "/v2/t/app/manifests/1", "/x/t/y"]
)
def test_secret_path_leaves_other_paths(path: str) -> None:
    """An upstream and a repository may be called t."""
    assert secret_path(path) is None
    assert shown_path(path) in (path, "/x/t/...", "/v2/t/.../manifests/1")


@pytest.mark.parametrize(
    "path",
    [
        f"/t/{S}/v2/",
        f"/t/{S}",
        f"/v2/t/{S}/quay.io/org/app/manifests/1",
        f"/{S}/v2/",
        f"/t/{S.replace('_', '%5F')}/v2/",
        f"/%74/{S}/v2/",
        f"/t/%72{S[1:]}/v2/",
        f"/v2/{S}/app/manifests/1",
    ],
)
def test_secret_path_is_not_shown(path: str) -> None:
    """The secret is left out, wherever it stands and however it is written; the rest stays readable."""
    shown = shown_path(path)
    assert S[4:20] not in shown
    assert "..." in shown


def test_secret_path_of_a_wrong_secret_is_not_shown() -> None:
    """A secret with a typing error is nearly one."""
    assert shown_path("/t/rtm_abcdef/v2/") == "/t/.../v2/"


def test_secret_in_the_wrong_place_is_recognised() -> None:
    """A name that only begins like a token is a name."""
    assert misplaced_secret(f"/v2/{S}/app/manifests/1")
    assert misplaced_secret(f"/v2/org/{S}/manifests/1")
    assert misplaced_secret(f"/v2/org/app/manifests/{S[:-9]}")
    assert misplaced_secret(f"/v2/{S.upper().replace('_', '%5f')}/manifests/1")
    assert not misplaced_secret("/v2/rmt_tools/app/manifests/1")
    assert not misplaced_secret("/v2/org/app/manifests/1")


@given(st.text("/tv2rm_a%5F.", max_size=60))
def test_secret_path_parser_takes_any_path(path: str) -> None:
    """Prefix and rest are the path; nothing is an error."""
    found = secret_path(path)
    if found is not None and found.prefix.startswith("/t/"):
        assert found.prefix + found.rest == path
    shown_path(path)
    misplaced_secret(path)
