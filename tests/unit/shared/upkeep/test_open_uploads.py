"""Uploads that have begun and not ended, at real stores, and at a server that answers nonsense."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from mirror.config.tier.shared import SharedSettings
from mirror.oci.digest import Digest
from mirror.shared.errors import TierError, TierFault
from mirror.shared.keys import object_key
from mirror.shared.memory import MemoryLeases
from mirror.shared.upkeep import open_uploads, sweeper
from mirror.shared.upkeep.open_uploads import _FIELD, OpenUpload, OpenUploads
from mirror.shared.upkeep.sweeper import UploadSweeper
from tests.engines import (
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    Engine,
    bucket_of,
    client_of,
    moto,
    running,
    seaweedfs,
    settings_of,
)
from tests.fakes.site import Seen, Site

DIGEST = Digest.of(b"x")


def uploads_of(settings: SharedSettings) -> OpenUploads:
    return OpenUploads(settings, bucket_of(settings))


@pytest.fixture(scope="module", params=[seaweedfs, moto])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(request.param(tmp_path_factory.mktemp("store"))) as engine:
        yield engine


def begun(store: Engine, *keys: str) -> list[str]:
    """Begin uploads, with a part each, as a mirror leaves them that is killed; return what was begun."""
    client = client_of(store)
    found = []
    for key in keys:
        upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=b"part")
        found.append(upload)
    client.close()
    return found


def left(store: Engine) -> list[str]:
    client = client_of(store)
    found = [each["UploadId"] for each in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]
    client.close()
    return found


@pytest.mark.slow
async def test_open_uploads_of_killed_mirrors_are_swept(
    store: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """List the uploads of blobs below the prefix with their age, and remove them with their parts."""
    uploads = uploads_of(settings_of(store, prefix="some/where"))
    key = f"some/where/{object_key(DIGEST)}"
    mine, *others = await asyncio.to_thread(
        begun, store, key, "some/where/blobs/other", object_key(DIGEST), "some/where/else"
    )
    found = [each async for each in uploads.list()]
    assert [(each.digest, each.key, each.upload) for each in found] == [(DIGEST, key, mine)]
    if store.name != "moto":  # which tells one date of 2010 for all uploads
        assert -60 < found[0].age < 300
        assert await UploadSweeper(uploads, MemoryLeases()).sweep() == 0  # it is not old
    monkeypatch.setattr(sweeper, "OLD_SECONDS", -60.0)
    assert await UploadSweeper(uploads, MemoryLeases()).sweep() == 1
    assert sorted(await asyncio.to_thread(left, store)) == sorted(others)
    await uploads.abort(found[0])  # which has ended


@pytest.mark.slow
async def test_open_uploads_with_a_wrong_secret_are_refused(store: Engine) -> None:
    """The message has no secret in it."""
    if store.name == "moto":
        pytest.skip("moto checks no signatures")
    uploads = uploads_of(settings_of(store, secret_key="wrong-secret-that-no-log-has"))
    with pytest.raises(TierError) as caught:
        assert [each async for each in uploads.list()]
    assert caught.value.fault is TierFault.REFUSED
    assert "no-log-has" not in f"{caught.value!r} {caught.value.__cause__!r}"


def at(url: str) -> OpenUploads:
    values = {"url": f"s3://{BUCKET}", "endpoint": url, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    return uploads_of(SharedSettings.model_validate(values))


def entry(key: str, upload: str = "u", begun: str = "2020-01-01T00:00:00.000Z") -> str:
    fields = f"<Key>{key}</Key><UploadId>{upload}</UploadId><Initiated>{begun}</Initiated>"
    return f"<Upload>{fields}<StorageClass/></Upload>"


async def test_open_uploads_are_read_page_by_page() -> None:
    """Leave out what is no blob of ours, or has no date; follow the markers to the next page."""
    name = object_key(DIGEST)
    pages = [
        entry(name) + entry("blobs/x") + entry(name, begun="yesterday") + entry("&lt;") + "<Upload></Upload>",
        entry(name, "v"),
    ]
    markers = "<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>m</NextUploadIdMarker>"

    async def handle(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        more = "<IsTruncated>true</IsTruncated>" if request.query.get("key-marker") is None else ""
        page = pages[0] if more else pages[1]
        return web.Response(text=f"<R>{markers}{more}{page}</R>", headers={"Date": "no date"})

    async with Site(handle) as site:
        found = [each async for each in at(site.url).list()]
        assert [each.upload for each in found] == ["u", "v"]
        assert all(each.age > 365 * 24 * 3600 for each in found)
        assert len(site.log) == 2
        assert SECRET_KEY not in str([(each.headers, each.query) for each in site.log])


async def test_open_uploads_are_read_to_the_end_of_a_long_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of a thousand comes in many pieces; one that is too long is an error, and no shorter list."""
    text = entry(object_key(DIGEST), "u" * 1000) * 1000

    async def handle(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(text=text)

    async with Site(handle) as site:
        assert len([each async for each in at(site.url).list()]) == 1000
        monkeypatch.setattr(open_uploads, "MOST_TEXT", len(text) - 1)
        with pytest.raises(TierError, match="more length"):
            assert [each async for each in at(site.url).list()]


async def test_open_uploads_of_a_store_that_fails() -> None:
    """A redirect is not followed, and a store that is away is no more than an error."""

    async def handle(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with Site(handle) as site:
        uploads = at(site.url)
        with pytest.raises(TierError, match="307"):
            await uploads.abort(OpenUpload(DIGEST, object_key(DIGEST), "u", 0.0))
        assert len(site.log) == 1
    with pytest.raises(TierError, match="ClientConnectorError"):
        assert [each async for each in at("http://127.0.0.1:9").list()]


def test_open_uploads_need_keys_of_the_configuration(tmp_path: Path) -> None:
    """List nothing where the keys come from the environment or a role."""
    assert not uploads_of(SharedSettings.model_validate({"url": f"s3://{BUCKET}"})).possible
    assert at("http://127.0.0.1:9").possible


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=200))
def test_open_uploads_take_any_text(key: str, upload: str, begun: str) -> None:
    """An entry is one of ours, or none."""
    found = at("http://127.0.0.1:9")._parse(dict(_FIELD.findall(entry(key, upload, begun))), 0.0)
    assert found is None or found.key == object_key(found.digest)
