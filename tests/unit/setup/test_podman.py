"""The drop-in of the Podman family."""

import tomllib

from mirror.setup.podman import LAST_NAME, MAIN, NAME, crio_plan, plan
from tests.unit.setup.system import PLAIN, SECURE, System, texts

FOLDER = "/etc/containers/registries.conf.d"
OURS = f"{FOLDER}/{NAME}"


def entries(text: str) -> dict[str, dict[str, object]]:
    return {each["prefix"]: each for each in tomllib.loads(text)["registry"]}


def test_podman_has_an_entry_for_each_registry(system: System) -> None:
    """Each registry has the mirror with its own path; plain HTTP is said."""
    found = entries(texts(plan(system.request(version="4.3.1")))[OURS])
    assert found["quay.io"] == {
        "prefix": "quay.io",
        "location": "quay.io",
        "mirror": [{"location": "mirror.lan:5000/quay.io", "insecure": True}],
    }
    assert list(found) == ["docker.io", "quay.io"]


def test_podman_over_tls_has_the_ca(system: System) -> None:
    """Nothing is insecure with TLS, and the CA is in the folder of the mirror."""
    found = texts(plan(system.request(SECURE)))
    assert "insecure" not in found[OURS]
    assert found["/etc/containers/certs.d/mirror.lan:5000/ca.crt"] == SECURE.ca


def test_podman_keeps_mirrors_and_keys_of_an_entry_that_it_replaces(system: System) -> None:
    """A later file replaces an entry as a whole: its keys and mirrors are carried over, below ours."""
    system.write(
        MAIN,
        """
[[registry]]
location = "docker.io"
mirror-by-digest-only = true
[[registry.mirror]]
location = "b.test/x"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "mirror.lan:5000/old"

[[registry]]
location = "private.test"
insecure = true
""",
    )
    text = texts(plan(system.request()))[OURS]
    assert entries(text)["docker.io"] == {
        "prefix": "docker.io",
        "location": "docker.io",
        "mirror-by-digest-only": True,
        "mirror": [
            {"location": "mirror.lan:5000/docker.io", "insecure": True},
            {"location": "b.test/x", "pull-from-mirror": "digest-only"},
        ],
    }
    assert "private.test" not in text


def test_podman_file_is_late_enough(system: System) -> None:
    """A later file with an entry for one of the registries would win: then ours has a later name."""
    system.write(f"{FOLDER}/99-x.conf", '[[registry]]\nlocation = "private.test"\n')
    assert OURS in texts(plan(system.request()))
    system.write(f"{FOLDER}/99-x.conf", '[[registry]]\nprefix = "quay.io"\nlocation = "q.test"\n')
    made = plan(system.request())
    assert list(texts(made)) == [f"{FOLDER}/{LAST_NAME}"]
    assert entries(texts(made)[f"{FOLDER}/{LAST_NAME}"])["quay.io"]["location"] == "q.test"
    system.apply(made)
    assert plan(system.request()) == made


def test_podman_with_version_1_beside(system: System) -> None:
    """A registries.conf in the first form keeps what it blocks and what is insecure."""
    system.write(
        MAIN,
        """
[registries.search]
registries = ["docker.io"]
[registries.insecure]
registries = ["quay.io"]
[registries.block]
registries = ["docker.io"]
""",
    )
    found = entries(texts(plan(system.request()))[OURS])
    assert (found["docker.io"]["blocked"], found["quay.io"]["insecure"]) == (True, True)


def test_podman_twice_changes_nothing(system: System) -> None:
    """The own file is not read as one of others."""
    made = plan(system.request())
    system.apply(made)
    assert plan(system.request()) == made


def test_crio_reloads(system: System) -> None:
    """CRI-O has the same file, and must be told."""
    made = crio_plan(system.request(PLAIN))
    assert texts(made) == texts(plan(system.request(PLAIN)))
    assert made.commands == ("systemctl reload crio",)
