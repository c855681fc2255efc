"""Docker's config.json: which entry is a registry's, as docker, podman and Kubernetes write it."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.credentials.credential import Credential
from mirror.credentials.docker_config import (
    HUB,
    MOST_BYTES,
    HelperEntry,
    find,
    names,
    parse,
    servers_of,
    unused,
)

HUB_SERVERS = servers_of("https://registry-1.docker.io")


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def found(url: str, **document: Any) -> HelperEntry | Credential | None:
    return find(parse(json.dumps(document).encode()), servers_of(url))


def user_of(entry: HelperEntry | Credential | None) -> str | None:
    return entry.username if isinstance(entry, Credential) else None


@pytest.mark.parametrize(
    ("key", "url", "used"),
    [
        ("quay.io", "https://quay.io", True),
        ("https://quay.io", "https://quay.io", True),
        ("https://quay.io/v1/", "https://quay.io", True),
        ("https://quay.io/v2/", "https://quay.io:443", True),
        ("http://r.lan:5000", "http://r.lan:5000", True),
        ("r.lan:5000", "https://r.lan:5000/base", True),
        ("[::1]:5000", "http://[::1]:5000", True),
        ("r.lan", "https://r.lan:5000", False),
        ("r.lan:5000", "https://r.lan", False),
        ("quay.io/org", "https://quay.io", False),
        ("quay.io.evil.test", "https://quay.io", False),
        (HUB, "https://registry-1.docker.io", True),
        ("docker.io", "https://registry-1.docker.io", True),
        ("index.docker.io", "https://registry-1.docker.io", False),
        ("https://index.docker.io/v1", "https://registry-1.docker.io", False),
        ("registry-1.docker.io", "https://registry-1.docker.io", False),
        (HUB, "https://harbor.test", False),
        ("docker.io", "http://127.0.0.1:5000", False),
    ],
)
def test_docker_config_key_of_a_registry(key: str, url: str, used: bool) -> None:
    """The URL decides, so that Docker Hub's login never goes to a proxy of it."""
    assert user_of(found(url, auths={key: auth("me", "geheim")})) == ("me" if used else None)


def test_docker_config_of_docker_beats_that_of_podman() -> None:
    """Both may be in one file."""
    auths = {"docker.io": auth("podman", "x"), HUB: auth("docker", "x")}
    assert user_of(found("https://registry-1.docker.io", auths=auths)) == "docker"


def test_docker_config_names_logins_that_docker_does_not_use() -> None:
    """`docker login index.docker.io` succeeds, and its login is never sent."""
    config = parse(json.dumps({"auths": {"index.docker.io": auth("me", "x"), "quay.io/org": {}}}).encode())
    assert unused(config, HUB_SERVERS) == ["index.docker.io"]
    assert unused(config, servers_of("https://quay.io")) == ["quay.io/org"]
    assert unused(config, servers_of("https://ghcr.io")) == []


def test_docker_config_helper_of_a_registry_comes_first() -> None:
    """The store of all registries is second; passwords in the file count only where there is neither."""
    document: dict[str, Any] = {"auths": {"quay.io": auth("me", "geheim")}, "credsStore": "pass"}
    assert found("https://quay.io", **document) == HelperEntry("pass")
    assert found("https://quay.io", **document, credHelpers={"quay.io": "x-1"}) == HelperEntry("x-1")
    assert found("https://registry-1.docker.io", credHelpers={HUB: "hub"}) == HelperEntry("hub")
    assert found("https://quay.io", credHelpers={"ghcr.io": "gh"}) is None


def test_docker_config_password_forms() -> None:
    """`auth` counts before `username`, which Kubernetes writes besides; zeros are docker's padding."""
    entry = {**auth("me", "a:b\0\0"), "username": "other", "password": "other"}
    login = found("https://quay.io", auths={"quay.io": entry})
    assert isinstance(login, Credential)
    assert (login.username, login.secret, login.identity) == ("me", "a:b", False)
    assert login.place == "auths quay.io"
    login = found("https://quay.io", auths={"quay.io": {"username": "me", "password": "p"}})
    assert isinstance(login, Credential)
    assert (login.username, login.secret) == ("me", "p")


def test_docker_config_identity_token_is_not_a_password() -> None:
    """Docker stores no password then, and an `auth` with an empty one."""
    login = found("https://quay.io", auths={"quay.io": {**auth("me", ""), "identitytoken": "tok"}})
    assert isinstance(login, Credential)
    assert (login.username, login.secret, login.identity) == ("me", "tok", True)


def test_docker_config_empty_entry_is_no_login() -> None:
    """Docker leaves one for what a store has."""
    config = parse(b'{"auths": {"quay.io": {}}, "credsStore": ""}')
    assert find(config, servers_of("https://quay.io")) is None
    assert names(config, servers_of("https://quay.io"))
    assert not names(config, HUB_SERVERS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "geheim",
        '{"auths": [1]}',
        '{"auths": {"quay.io": "geheim"}}',
        '{"credHelpers": {"quay.io": 1}}',
        '{"credHelpers": {"quay.io": "../geheim"}}',
        '{"credHelpers": {"quay.io": "-h"}}',
        '{"credsStore": "/bin/geheim"}',
        '{"credsStore": ["geheim"]}',
        "{" * 10_000,
        " " * (MOST_BYTES + 1),
    ],
)
def test_docker_config_of_another_form_is_refused(text: str) -> None:
    """The reason repeats nothing of the file; no file names a program by its path."""
    with pytest.raises(ValueError, match=r"is |has |names ") as raised:
        parse(text.encode())
    assert "geheim" not in str(raised.value)


def test_docker_config_entry_that_cannot_be_read_is_refused() -> None:
    """No base64, or a control character in it; another registry's entry does not matter."""
    for entry in ({"auth": "geheim!"}, auth("m\ne", "geheim")):
        document = {"auths": {"quay.io": entry, "ghcr.io": auth("me", "x")}}
        with pytest.raises(ValueError, match="has an") as raised:
            found("https://quay.io", **document)
        assert "geheim" not in str(raised.value)
        assert user_of(found("https://ghcr.io", **document)) == "me"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["pass", "bWU6eA=="]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["auths", "credHelpers", "credsStore", "quay.io", HUB, "auth", "identitytoken"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON | st.binary(max_size=64))
def test_docker_config_parser_raises_value_errors_only(document: object) -> None:
    """Any file has a login, a helper, nothing, or one error."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    for servers in (HUB_SERVERS, servers_of("https://quay.io")):
        try:
            config = parse(data)
            unused(config, servers)
            entry = find(config, servers)
        except ValueError:
            continue
        assert entry is None or isinstance(entry, HelperEntry | Credential)
