"""Logins that other programs store: skopeo in a config.json, and the credential helpers of Debian.

The helpers are pass, with gpg in a home of its own, and Amazon's for ECR. They are skipped where the programs
are not on PATH, in CI too: once golang-docker-credential-helpers is installed, `docker login` puts passwords
there, and fails where nothing is set up. An unpacked package will do (`apt-get download`, `dpkg -x`).
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.credentials.docker_config import servers_of
from mirror.credentials.sources import DockerConfigSource, HelperSource
from mirror.oci.reference import Tag
from tests.fakes.access import BasicAuth
from tests.fakes.registry import FakeRegistry
from tests.fakes.upstream import registry_at
from tests.programs import program

pytestmark = pytest.mark.slow


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [each for each in programs if shutil.which(each) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not on PATH: {' '.join(missing)}")


HUB = "https://index.docker.io/v1/"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of a user with a key of gpg and an empty store of pass."""
    # A socket's path has 108 characters at most.
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GNUPGHOME": str(folder / ".gnupg"),
        "PASSWORD_STORE_DIR": str(folder / "store"),
    }
    (folder / ".gnupg").mkdir(mode=0o700)
    make = [
        "gpg",
        "--batch",
        "--passphrase",
        "",
        "--quick-generate-key",
        "mirror@example.test",
        "default",
        "default",
    ]
    try:
        for command in (make, ["pass", "init", "mirror@example.test"]):
            subprocess.run(command, env=environment, capture_output=True, check=True, timeout=120)
        yield environment
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env=environment, capture_output=True, check=False)
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def store(environment: dict[str, str], server: str) -> None:
    text = f'{{"ServerURL": "{server}", "Username": "me", "Secret": "geheim"}}'
    command = ["docker-credential-pass", "store"]
    subprocess.run(command, input=text, text=True, env=environment, check=True, timeout=60)


@pytest.mark.needs("skopeo")
async def test_login_of_skopeo_is_used(fake: FakeRegistry, tmp_path: Path) -> None:
    """The file that `skopeo login` has written, as podman and buildah write it, gives access."""
    fake.add_image("org/x", "t", [b"layer"])
    fake.auth = BasicAuth("me", "geheim")
    file, host = tmp_path / "auth.json", fake.url.removeprefix("http://")
    options = ["--authfile", str(file), "--tls-verify=false", "--username", "me", "--password", "geheim"]
    skopeo = await asyncio.to_thread(program, "skopeo")
    process = await asyncio.create_subprocess_exec(skopeo, "login", *options, host)
    assert await process.wait() == 0
    async with registry_at(fake.url, docker_config=str(file)) as registry:
        assert await registry.head_manifest("org/x", Tag("t"))


@needs("docker-credential-pass", "pass", "gpg")
def test_pass_helper_has_the_logins_that_were_stored(home: dict[str, str], tmp_path: Path) -> None:
    """Docker Hub's by docker's key; a server stored with a scheme; none for any other, without an error."""
    store(home, HUB)
    store(home, "https://r.test")
    found = {
        url: asyncio.run(HelperSource("pass", servers_of(url), home, 900.0).fetch())
        for url in ("https://registry-1.docker.io", "https://r.test", "https://other.test")
    }
    places = [each.credential and each.credential.place for each in found.values()]
    assert places == [f"docker-credential-pass get {HUB}", "docker-credential-pass get https://r.test", None]
    assert found["https://other.test"].note.startswith("docker-credential-pass has no login for other.test")
    config = tmp_path / "config.json"
    config.write_text('{"credsStore": "pass"}')
    source = DockerConfigSource(config, servers_of("https://registry-1.docker.io"), home, 900.0)
    login = asyncio.run(source.fetch()).credential
    assert login is not None
    assert (login.username, login.secret) == ("me", "geheim")


@needs("docker-credential-ecr-login")
@pytest.mark.parametrize("host", ["123456789012.dkr.ecr.eu-central-1.amazonaws.com", "quay.io"])
def test_ecr_helper_without_aws_credentials_is_explained(host: str, tmp_path: Path) -> None:
    """The helper has the same words for both hosts; the note says so."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    answer = asyncio.run(HelperSource("ecr-login", servers_of(f"https://{host}"), environment, 900.0).fetch())
    assert answer.credential is None
    assert "finds no AWS credentials" in answer.note
