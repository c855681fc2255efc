"""Docker's daemon.json, certificates and hosts.toml."""

import json

import pytest

from mirror.setup.docker import CONFIG, daemon_json, plan
from mirror.setup.plan import Mirror, SetupError
from tests.unit.setup.system import CA, HUB, LOCAL, PLAIN, QUAY, SECURE, System, texts


def test_docker_without_a_configuration(system: System) -> None:
    """The mirror and, for plain HTTP on a network, its address among the insecure registries."""
    made = plan(system.request(version="20.10.24"))
    assert json.loads(texts(made)[CONFIG]) == {
        "registry-mirrors": ["http://mirror.lan:5000"],
        "insecure-registries": ["mirror.lan:5000"],
    }
    assert list(texts(made)) == [CONFIG]
    assert made.commands == ("systemctl reload docker",)
    assert "docker pull mirror.lan:5000/quay.io/" in made.notes[0]


def test_docker_on_loopback_needs_no_insecure_registry(system: System) -> None:
    """Docker trusts 127.0.0.0/8 by itself."""
    made = plan(system.request(LOCAL, "20.10.24"))
    assert json.loads(texts(made)[CONFIG]) == {"registry-mirrors": ["http://127.0.0.1:5000"]}


def test_docker_keeps_settings_order_and_indent(system: System) -> None:
    """Unknown keys stay in their order, other mirrors come after ours, the indent is the file's."""
    before = (
        '{\n\t"log-level": "warn",\n\t"registry-mirrors": ["https://other"],\n'
        '\t"insecure-registries": ["10.0.0.0/8"],\n\t"x": {"ä": 1}\n}\n'
    )
    system.write(CONFIG, before)
    text = texts(plan(system.request(version="20.10.24")))[CONFIG]
    assert list(json.loads(text)) == ["log-level", "registry-mirrors", "insecure-registries", "x"]
    assert json.loads(text)["registry-mirrors"] == ["http://mirror.lan:5000", "https://other"]
    assert json.loads(text)["insecure-registries"] == ["10.0.0.0/8", "mirror.lan:5000"]
    assert '\n\t"log-level"' in text
    assert '"ä"' in text


def test_docker_twice_changes_nothing(system: System) -> None:
    """A file that says it already stays byte for byte, however it is formatted."""
    same = '{"registry-mirrors":["http://mirror.lan:5000","https://b"],"insecure-registries":["mirror.lan:5000"]}'
    system.write(CONFIG, same)
    assert texts(plan(system.request(version="20.10.24")))[CONFIG] == same
    for mirror in (PLAIN, SECURE, LOCAL):
        for _ in range(2):
            made = plan(system.request(mirror))
            system.apply(made)
        assert plan(system.request(mirror)) == made


def test_docker_mirror_with_a_slash_is_the_same() -> None:
    """Docker stores a mirror with a slash at its end."""
    text = daemon_json('{"registry-mirrors": ["http://a:1/", "http://b:1"]}', "http://a:1", None)
    assert json.loads(text or "")["registry-mirrors"] == ["http://a:1", "http://b:1"]


@pytest.mark.parametrize("text", ["{", "[]", '{"registry-mirrors": "http://a"}', "// comment\n{}"])
def test_docker_refuses_a_file_that_docker_refuses(text: str) -> None:
    """A file that is not right is named, and not replaced."""
    with pytest.raises(SetupError, match=r"daemon.json"):
        daemon_json(text, "http://m:5000", None)


def test_docker_empty_file_is_no_configuration() -> None:
    """Docker starts with an empty file; so does the setup."""
    assert json.loads(daemon_json(" \n", "http://m:5000", None) or "") == {
        "registry-mirrors": ["http://m:5000"]
    }


def test_docker_has_the_ca_at_the_places_of_both_stores(system: System) -> None:
    """The classic store reads the mirror's folder, the containerd store the one of docker.io."""
    old, new = (texts(plan(system.request(SECURE, version))) for version in ("20.10.24", "29.1.0"))
    assert old["/etc/docker/certs.d/mirror.lan:5000/ca.crt"] == CA
    assert "/etc/docker/certs.d/docker.io/registry-mirror-ca.crt" not in old
    assert new["/etc/docker/certs.d/mirror.lan:5000/ca.crt"] == CA
    assert new["/etc/docker/certs.d/docker.io/registry-mirror-ca.crt"] == CA
    assert json.loads(new[CONFIG]) == {"registry-mirrors": ["https://mirror.lan:5000"]}


def test_docker_29_has_hosts_files_for_the_other_registries(system: System) -> None:
    """The containerd store reads hosts.toml; docker.io has registry-mirrors, unless a file wins over it."""
    path = "/etc/docker/certs.d/{}/hosts.toml"
    assert path.format("quay.io") not in texts(plan(system.request(version="28.5.2")))
    made = texts(plan(system.request(version="29.0.0")))
    assert made[path.format("quay.io")].startswith('[host."http://mirror.lan:5000"]')
    assert path.format("docker.io") not in made
    system.write(path.format("docker.io"), '[host."https://b"]\n  capabilities = ["pull"]\n')
    text = texts(plan(system.request(version="29.0.0")))[path.format("docker.io")]
    assert text.index("mirror.lan") < text.index("https://b")


def test_docker_needs_docker_hub(system: System) -> None:
    """A mirror without docker.io, or with another default for an old Docker, is no registry-mirror."""
    for mirror, version, url in (
        (Mirror("m.lan:5000", False, (QUAY,)), "29.0.0", None),
        (Mirror("m.lan:5000", False, (QUAY, HUB)), "24.0.9", None),
        (Mirror("m.lan:5000", False, (QUAY, HUB)), "25.0.0", "http://m.lan:5000/docker.io"),
    ):
        made = plan(system.request(mirror, version))
        assert json.loads(texts(made)[CONFIG]).get("registry-mirrors", [None])[0] == url
        assert (url is None) is any("his mirror does not" in each or "default" in each for each in made.notes)


@pytest.mark.parametrize(
    ("file", "text", "refused"),
    [
        ("/etc/default/docker", 'DOCKER_OPTS="--registry-mirror=http://a"', "--registry-mirror"),
        ("/etc/default/docker", '#DOCKER_OPTS="--registry-mirror=http://a"', ""),
        (
            "/etc/systemd/system/docker.service.d/x.conf",
            "ExecStart=dockerd --insecure-registry a:1",
            "--insecure",
        ),
        ("/lib/systemd/system/docker.service", "ExecStart=dockerd -H fd://", ""),
    ],
)
def test_docker_with_the_setting_as_a_flag(system: System, file: str, text: str, refused: str) -> None:
    """Docker does not start with a setting as a flag and in daemon.json: the flag's file is named."""
    system.write(file, text + "\n")
    if not refused:
        assert texts(plan(system.request(version="20.10")))
        return
    with pytest.raises(SetupError, match=f"{file} starts dockerd with {refused}"):
        plan(system.request(version="20.10"))


def test_nothing_is_reloaded_where_nothing_is_to_be_written(system: System) -> None:
    """Docker 20 and a mirror on loopback whose default is another registry: the notes say what to do."""
    found = plan(system.request(Mirror("127.0.0.1:5000", False, (QUAY, HUB)), "20.10.24"))
    assert (found.files, found.commands) == ((), ())
    assert "Put docker.io first" in found.notes[0]
