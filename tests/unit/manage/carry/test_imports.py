"""Imports: bundles in one file and in parts, deltas, archives of other programs, damage."""

import random
import tarfile
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest
from msgspec.structs import replace

from mirror.bundle.archives.opening import open_archive
from mirror.bundle.errors import BundleError
from mirror.bundle.plan import make_plan
from mirror.manage.carry import imports
from mirror.manage.carry.export import OutputFolder, targets, write_target
from mirror.manage.carry.have import have
from mirror.manage.carry.held import HeldBlobs
from mirror.manage.carry.imports import Import, NoRoomForImport
from mirror.manage.carry.room import ImportRoom
from mirror.oci.digest import Digest
from mirror.oci.image_pattern import ImagePattern, Pin
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import PinTooLarge
from mirror.store.metadata.index import NEVER
from tests.fakes.bundles import Shelf, random_bytes
from tests.fakes.cached import X, Y, open_folder, put_image, put_signature
from tests.unit.manage.carry.bundles import collected, exported
from tests.unit.manage.carry.carrying import NOW, imported, options, states

SHARED, OWN, OTHER = (random_bytes(size, size) for size in (700_000, 400_000, 300_000))
NAME_X, NAME_Y = "docker.io/library/x:1", "quay.io/org/y:v1"


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[CacheDirectory]:
    """Two images that share a layer; one is signed."""
    folder = open_folder(tmp_path / "sender")
    put_image(folder, X, "1", [SHARED, OWN])
    signed = put_image(folder, Y, "v1", [SHARED, OTHER])
    put_signature(folder, Y, signed[0])
    yield folder
    folder.close()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[CacheDirectory]:
    folder = open_folder(tmp_path / "receiver")
    yield folder
    assert folder.blobs.check() == []
    folder.close()


def test_import_has_the_same_as_the_sender(
    sender: CacheDirectory, receiver: CacheDirectory, tmp_path: Path
) -> None:
    """Blobs, tags and signatures are here; the export of it is the same file, byte for byte."""
    counted: list[int] = []
    (file,) = exported(sender, tmp_path / "lab.tar", "*/*")
    results = imported(receiver, file, on_bytes=counted.append)
    assert set(states(results).values()) == {"imported"}
    assert {NAME_X, NAME_Y} < results.keys()
    entry = receiver.index.tag(X, Tag("1"))
    assert entry is not None
    assert entry.confirmed == NEVER
    assert entry.provenance is not None
    assert (entry.provenance.kind, entry.provenance.origin, entry.provenance.date) == (
        "imported",
        "lab.tar",
        NOW,
    )
    assert exported(receiver, tmp_path / "again.tar", "*/*")[0].read_bytes() == file.read_bytes()
    assert set(states(imported(receiver, file)).values()) == {"present"}
    assert list(receiver.partials.iterdir()) == []


def test_import_makes_no_content_readable_elsewhere(
    sender: CacheDirectory, receiver: CacheDirectory, tmp_path: Path
) -> None:
    """The repositories of the bundle have their blobs; another one that names them asks its upstream."""
    imported(receiver, exported(sender, tmp_path / "lab.tar", "*/*")[0])
    elsewhere = Repository("docker.io", "evil/image")
    put_image(receiver, elsewhere, "1", [SHARED])
    for repository in (X, Y):
        local = receiver.reader.open_blob(repository, Digest.of(SHARED))
        assert local.is_open
        local.close()
    assert receiver.reader.look_up(elsewhere, Digest.of(SHARED)).unconfirmed
    assert receiver.reader.link(Y, Digest.of(OWN)) is None


def test_import_vouches_for_nothing_that_the_sender_lacked(
    sender: CacheDirectory, receiver: CacheDirectory, tmp_path: Path
) -> None:
    """A blob that the sender only knows by a name stays closed for the repository, although it is here."""
    secret = Repository("quay.io", "org/secret")
    (file,) = exported(sender, tmp_path / "secret.tar", "x:1")
    put_image(sender, secret, "1", [random_bytes(300_000, 9)])
    imported(receiver, exported(sender, tmp_path / "secret.tar", "quay.io/org/secret:1")[0])
    put_image(sender, X, "1", [random_bytes(300_000, 9)])
    sender.blobs.remove(Digest.of(random_bytes(300_000, 9)))
    contents = collected(sender, "x:1").contents
    (target,) = targets("claims.tar", contents)
    with HeldBlobs(sender, 1024) as held:
        write_target(OutputFolder(tmp_path), target, held.open)
    imported(receiver, tmp_path / "claims.tar")
    assert receiver.reader.look_up(X, Digest.of(random_bytes(300_000, 9))).unconfirmed
    assert file.exists()


@pytest.mark.parametrize("guard", [{"accounts": ("quay.io",)}, {"ruled": True}], ids=["accounts", "rules"])
@pytest.mark.parametrize("form", ["carried", "delta", "other bytes"])
def test_import_opens_nothing_by_a_digest_where_not_all_is_for_everybody(
    receiver: CacheDirectory, tmp_path: Path, form: str, guard: dict[str, object]
) -> None:
    """A private layer is opened by its bytes, and by no bundle that names its digest."""
    shelf, file = Shelf(), tmp_path / "claims.tar"
    root, secret = shelf.image([SHARED, OWN]), Digest.of(OWN)
    put_image(receiver, Repository("quay.io", "org/secret"), "1", [OWN])
    contents = shelf.contents({NAME_X: root}, frozenset({secret} if form == "delta" else ()))
    data = shelf.written(make_plan(contents))
    file.write_bytes(data.replace(OWN, bytes(len(OWN))) if form == "other bytes" else data)
    run = Import(receiver, replace(options(), **guard))
    with open_archive(file) as archive:
        run.read(archive, file.name)
    list(run.finish())
    assert receiver.reader.look_up(X, secret).unconfirmed == (form != "carried")
    assert not receiver.reader.look_up(X, Digest.of(SHARED)).unconfirmed
    assert len(run.damages) == (form == "other bytes")


def test_import_whose_names_lead_to_too_many_links_is_refused(
    receiver: CacheDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the names costs the links of the whole image, which is in the archive once."""
    shelf, file = Shelf(), tmp_path / "names.tar"
    root = shelf.image([b"a", b"b", b"c"])
    file.write_bytes(
        shelf.written(make_plan(shelf.contents({f"quay.io/x{each}:1": root for each in range(6)})))
    )
    monkeypatch.setattr(imports, "MOST_LINKS", 23)
    with pytest.raises(BundleError, match="more than 23 links"):
        imported(receiver, file)
    assert receiver.index.tag(Repository("quay.io", "x1"), Tag("1")) is None
    monkeypatch.setattr(imports, "MOST_LINKS", 24)
    assert len(imported(receiver, file)) == 6


def test_import_of_an_upstream_with_an_account(
    sender: CacheDirectory, receiver: CacheDirectory, tmp_path: Path
) -> None:
    """The links hold as long as those that the account confirms."""
    wishes = replace(options(), accounts=("quay.io",))
    imported(receiver, exported(sender, tmp_path / "lab.tar", "*/*")[0], wishes)
    for repository, account in ((X, False), (Y, True)):
        link = receiver.reader.link(repository, Digest.of(SHARED))
        assert link is not None
        assert (link.confirmed, link.account) == (NOW, account)


def test_import_of_parts_in_any_order(sender: CacheDirectory, tmp_path: Path) -> None:
    """The last part completes the images, whichever that is; before, the lacking parts are named."""
    parts = exported(sender, tmp_path / "lab.tar", "*/*", split=600_000)
    whole = exported(sender, tmp_path / "whole.tar", "*/*")[0].read_bytes()
    assert len(parts) > 2
    for seed, order in enumerate(random.Random(1).sample(list(permutations(range(len(parts)))), 4)):
        receiver = open_folder(tmp_path / f"receiver{seed}")
        for number, place in enumerate(order, 1):
            results = imported(receiver, parts[place])
            lacking = {part for each in results.values() for part in each.parts}
            assert lacking <= {each + 1 for each in order[number:]}
            assert bool(lacking) == (number < len(order))
            assert (receiver.index.tag(X, Tag("1")) is None) == (results[NAME_X].state == "lacking")
        assert list(receiver.partials.iterdir()) == []
        assert exported(receiver, tmp_path / f"again{seed}.tar", "*/*")[0].read_bytes() == whole
        receiver.close()


def test_import_of_a_delta(sender: CacheDirectory, receiver: CacheDirectory, tmp_path: Path) -> None:
    """One changed layer carries one layer; with the base it is the whole."""
    imported(receiver, exported(sender, tmp_path / "base.tar", "x:1")[0])
    new = random_bytes(100_000, 5)
    put_image(sender, X, "1", [SHARED, new])
    (delta,) = exported(sender, tmp_path / "delta.tar", "x:1", assumed=have(receiver))
    assert 100_000 < delta.stat().st_size < 120_000
    assert states(imported(receiver, delta)) == {NAME_X: "imported"}
    whole = exported(sender, tmp_path / "whole.tar", "x:1")[0].read_bytes()
    assert exported(receiver, tmp_path / "again.tar", "x:1")[0].read_bytes() == whole


def test_import_of_a_delta_without_its_base(
    sender: CacheDirectory, receiver: CacheDirectory, tmp_path: Path
) -> None:
    """The lacking layer is named, and no tag points to half an image."""
    (delta,) = exported(sender, tmp_path / "delta.tar", "x:1", assumed={Digest.of(SHARED)})
    result = imported(receiver, delta)[NAME_X]
    assert (result.state, result.lacking, result.parts) == ("lacking", {Digest.of(SHARED): 700_000}, ())
    assert receiver.index.tag(X, Tag("1")) is None


def test_import_keeps_newer_tags(sender: CacheDirectory, receiver: CacheDirectory, tmp_path: Path) -> None:
    """A tag that its upstream confirmed here later than at the sender stays, unless it is forced."""
    (file,) = exported(sender, tmp_path / "lab.tar", "x:1")
    newer = put_image(receiver, X, "1", [OTHER])[0]
    entry = receiver.index.tag(X, Tag("1"))
    assert entry is not None
    receiver.writer.put_tag(X, Tag("1"), replace(entry, confirmed=entry.confirmed + 60))
    assert states(imported(receiver, file)) == {NAME_X: "older"}
    kept = receiver.index.tag(X, Tag("1"))
    assert kept is not None
    assert kept.digest == str(newer)
    assert states(imported(receiver, file, options(forced=True))) == {NAME_X: "present"}
    forced = receiver.index.tag(X, Tag("1"))
    assert forced is not None
    assert forced.digest != str(newer)


def test_import_of_an_older_bundle_after_a_newer_one(
    sender: CacheDirectory, receiver: CacheDirectory, tmp_path: Path
) -> None:
    """Times are those of the sender's confirmations, not those of the imports."""
    (old,) = exported(sender, tmp_path / "old.tar", "x:1")
    put_image(sender, X, "1", [SHARED, OTHER])
    entry = sender.index.tag(X, Tag("1"))
    assert entry is not None
    sender.writer.put_tag(X, Tag("1"), replace(entry, confirmed=entry.confirmed + 60))
    (new,) = exported(sender, tmp_path / "new.tar", "x:1")
    assert [states(imported(receiver, each)) for each in (new, old)] == [
        {NAME_X: "imported"},
        {NAME_X: "older"},
    ]
    receiver.index.drop(X, ["1"], [])
    assert [imported(receiver, each)[NAME_X].state for each in (old, new)] == ["present", "present"]
    kept = receiver.index.tag(X, Tag("1"))
    assert kept is not None
    assert kept.digest == entry.digest


def test_import_pins(sender: CacheDirectory, receiver: CacheDirectory, tmp_path: Path) -> None:
    """Each image is pinned by its tag."""
    imported(receiver, exported(sender, tmp_path / "lab.tar", "x:1")[0], options(pin=True))
    (pin,) = receiver.pins.all()
    assert pin.pin.images == ImagePattern("docker.io/library/x", "1")
    assert str(Digest.of(OWN)) in receiver.pins.pinned_sizes()


@pytest.mark.parametrize("pin", [False, True])
def test_import_says_what_does_not_fit_before_it_evicts(
    sender: CacheDirectory, tmp_path: Path, pin: bool
) -> None:
    """Nothing is kept of a bundle that cannot fit, and nothing goes for it."""
    receiver = open_folder(tmp_path / "small", max_size=1_000_000)
    here = put_image(receiver, Y, "1", [b"x" * 500_000])
    with pytest.raises(NoRoomForImport) as failure:
        imported(receiver, exported(sender, tmp_path / "lab.tar", "x:1")[0], options(pin=pin))
    assert failure.value.room.new > 1_000_000
    assert all(map(receiver.reader.has, here))
    assert not receiver.reader.has(Digest.of(OWN))
    receiver.close()


def test_import_evicts_what_must_go(sender: CacheDirectory, tmp_path: Path) -> None:
    """The operator is told how much goes for it."""
    rooms: list[ImportRoom] = []
    receiver = open_folder(tmp_path / "small", max_size=1_500_000)
    put_image(receiver, Y, "1", [b"x" * 900_000])
    wishes = replace(options(), on_room=rooms.append)
    assert states(imported(receiver, exported(sender, tmp_path / "l.tar", "x:1")[0], wishes)) == {
        NAME_X: "imported"
    }
    assert rooms[0].evicted > 400_000
    assert not receiver.reader.has(Digest.of(b"x" * 900_000))
    assert receiver.evictor.excess() == 0
    receiver.close()


def test_import_that_cannot_pin_says_so(sender: CacheDirectory, tmp_path: Path) -> None:
    """The operator may have pinned something else meanwhile."""
    receiver = open_folder(tmp_path / "small", max_size=1_600_000)
    receiver.blobs.remove(put_image(receiver, Y, "1", [b"x" * 600_000])[2])
    run = Import(receiver, options(pin=True))
    with open_archive(exported(sender, tmp_path / "lab.tar", "x:1")[0]) as archive:
        run.read(archive, "lab.tar")
    receiver.pinning.pin(Pin.parse("quay.io/org/y:1"))
    with pytest.raises(PinTooLarge):
        list(run.finish())
    receiver.close()


def test_import_of_damage_keeps_what_is_right(
    sender: CacheDirectory, receiver: CacheDirectory, tmp_path: Path
) -> None:
    """The damaged layer is named; the image that needs it has no tag, the other one has."""
    (file,) = exported(sender, tmp_path / "lab.tar", "*/*")
    data = bytearray(file.read_bytes())
    data[data.index(OWN) + 1000] ^= 1
    file.write_bytes(data)
    run = Import(receiver, options())
    with open_archive(file) as archive:
        run.read(archive, "lab.tar")
    (damage,) = run.damages
    assert Digest.of(OWN).encoded in str(damage)
    results = {each.name: each for each in run.finish()}
    assert (results[NAME_X].state, results[NAME_Y].state) == ("lacking", "imported")
    assert results[NAME_X].lacking == {Digest.of(OWN): 400_000}
    assert list(receiver.partials.iterdir()) == []


def test_import_of_a_file_that_is_cut_short(
    sender: CacheDirectory, receiver: CacheDirectory, tmp_path: Path
) -> None:
    """The file is refused, no image has a tag, and whole blobs stay for the next try."""
    (file,) = exported(sender, tmp_path / "lab.tar", "*/*")
    whole = file.read_bytes()
    for share in range(1, 8):
        file.write_bytes(whole[: len(whole) * share // 8])
        with pytest.raises(BundleError):
            imported(receiver, file)
    assert receiver.index.repositories("", "", 9) == []
    assert receiver.blobs.stats()[1] > 0
    assert list(receiver.partials.iterdir()) == []
    file.write_bytes(whole)
    assert set(states(imported(receiver, file)).values()) <= {"imported", "present"}


def test_import_of_another_program_s_archive(receiver: CacheDirectory, tmp_path: Path) -> None:
    """A name without a registry is completed; a tag alone needs a name."""
    shelf = Shelf()
    root = shelf.image([OWN])
    plan = make_plan(shelf.contents({"docker.io/library/app:2": root}))
    file = tmp_path / "app.tar"
    file.write_bytes(shelf.written(plan))
    foreign = tmp_path / "foreign"
    with tarfile.open(file) as tar:
        tar.extractall(foreign, filter="data")
    (foreign / "registry-mirror.json").unlink()
    index = foreign / "index.json"
    index.write_text(index.read_text().replace("docker.io/library/app:2", "app:2"))
    assert states(imported(receiver, foreign)) == {"docker.io/library/app:2": "imported"}
    index.write_text(index.read_text().replace("app:2", "2"))
    with pytest.raises(BundleError, match="--as"):
        imported(receiver, foreign)
    assert states(imported(receiver, foreign, options("quay.io/org/app"))) == {"quay.io/org/app:2": "present"}
    (foreign / "index.json").write_text('{"manifests": []}')
    with pytest.raises(BundleError, match="none of its 0 images"):
        imported(receiver, foreign)
    entry = receiver.index.tag(Repository("quay.io", "org/app"), Tag("2"))
    assert entry is not None
    assert entry.digest == str(root.digest)
