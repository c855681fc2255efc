"""The commands about the shared tier, with a real object store."""

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from mirror.oci.digest import Digest
from mirror.shared.keys import object_key
from tests.engines import ACCESS_KEY, BUCKET, SECRET_KEY, Engine, moto, running
from tests.unit.cli.test_app import run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(moto(tmp_path_factory.mktemp("moto"))) as engine:
        yield engine


@pytest.fixture
def config(store: Engine, tmp_path: Path) -> str:
    """A configuration whose bucket has a right blob and a wrong one."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{store.port}",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )
    for digest in (Digest.of(b"right"), Digest.of(b"other")):
        client.put_object(Bucket=BUCKET, Key=object_key(digest), Body=b"right")
    client.close()
    file = tmp_path / "mirror.toml"
    endpoint = f'endpoint = "http://127.0.0.1:{store.port}"'
    keys = f'access_key = "{ACCESS_KEY}"\nsecret_key = "{SECRET_KEY}"'
    file.write_text(f'[shared]\nurl = "s3://{BUCKET}"\n{endpoint}\n{keys}\n')
    return str(file)


def shared(*arguments: str) -> tuple[int, str, str]:
    """Run a command; return its exit status, standard output and standard error."""
    done = run("shared", *arguments)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_shared_status_says_what_can_be_used(config: str) -> None:
    """Bucket, blobs and leases, for people and for programs; no secret."""
    status, out, _ = shared("status", "--config", config)
    assert (status, "2 blobs" in out, "leases: ok" in out, SECRET_KEY in out) == (0, True, True, False)
    document = json.loads(shared("status", "--config", config, "--json")[1])
    assert (document["blobs"], document["reads"], document["leases"]) == (2, None, None)


@pytest.mark.slow
def test_shared_verify_and_gc_find_and_remove(config: str) -> None:
    """A wrong blob is listed, exit status 1, and removed on request; old blobs go, but not in a dry run."""
    right, wrong = str(Digest.of(b"right")), str(Digest.of(b"other"))
    status, out, _ = shared("verify", "--config", config, "--remove")
    assert (status, wrong in out, right in out) == (1, True, False)
    assert shared("verify", "--config", config)[0] == 0
    old = ("gc", "--config", config, "--older-than")
    assert "0 blobs removed" in shared(*old, "1d")[2]
    assert f"{right}\t5\twould go" in shared(*old, "1ms", "--dry-run")[1]
    assert json.loads(shared(*old, "1ms", "--json")[1]) == [{"digest": right, "size": 5}]
    assert json.loads(shared(*old, "1ms", "--json")[1]) == []


def test_shared_commands_without_a_tier_say_so(tmp_path: Path) -> None:
    """No bucket, a store that is away, and an age that is none."""
    status, _, error = shared("status", "--config", "")
    assert (status, "no url in [shared]" in error) == (2, True)
    file = tmp_path / "mirror.toml"
    store = 'url = "s3://away"\nendpoint = "http://127.0.0.1:9"\naccess_key = "a"\nsecret_key = "b"'
    file.write_text(f'[shared]\n{store}\ntimeout = "500ms"\n')
    status, _, error = shared("status", "--config", str(file))
    assert (status, "s3://away" in error) == (1, True)
    status, _, error = shared("gc", "--older-than", "old", "--config", str(file))
    assert (status, "--older-than" in error) == (2, True)
