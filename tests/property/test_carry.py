"""Rules of bundles, over made-up images: nothing is lost, added or changed on the way."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.manage.carry.have import have
from mirror.oci.reference import Repository
from mirror.store.cache_dir import CacheDirectory
from tests.fakes.bundles import random_bytes
from tests.fakes.cached import X, Y, open_folder, put_image, put_signature
from tests.unit.manage.carry.bundles import exported
from tests.unit.manage.carry.carrying import imported, states

# An image: its repository, its tag, the seeds of its layers, and whether it is signed.
Made = tuple[Repository, str, tuple[int, ...], bool]

LAYERS = st.lists(st.integers(0, 9), max_size=4, unique=True).map(tuple)
IMAGES = st.lists(
    st.tuples(st.sampled_from([X, Y]), st.sampled_from(["1", "2", "3"]), LAYERS, st.booleans()),
    min_size=1,
    max_size=4,
    unique_by=lambda image: (str(image[0]), image[1]),
)
EVERYTHING = "*/*"

# Each example makes several cache folders, which takes tenths of a second.
FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def layer(seed: int) -> bytes:
    """Return a layer: some are smaller than what is kept in memory, some larger than a part."""
    return random_bytes((seed + 1) * 61_000, seed)


def put(folder: CacheDirectory, images: list[Made]) -> None:
    for repository, tag, layers, signed in images:
        root = put_image(folder, repository, tag, [layer(each) for each in layers])[0]
        if signed:
            put_signature(folder, repository, root)


@contextmanager
def folders() -> Iterator[tuple[CacheDirectory, CacheDirectory, Path]]:
    """Make a sender, a receiver, and a place for files."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        sender, receiver = open_folder(path / "sender"), open_folder(path / "receiver")
        yield sender, receiver, path
        assert receiver.blobs.check() == []
        assert list(receiver.partials.iterdir()) == []
        sender.close()
        receiver.close()


@FEW
@given(IMAGES)
@pytest.mark.slow
def test_carry_there_and_back_is_the_same_file(images: list[Made]) -> None:
    """An export of what was imported is the file that was imported."""
    with folders() as (sender, receiver, path):
        put(sender, images)
        (file,) = exported(sender, path / "there.tar", EVERYTHING)
        assert set(states(imported(receiver, file)).values()) == {"imported"}
        assert exported(receiver, path / "back.tar", EVERYTHING)[0].read_bytes() == file.read_bytes()


@FEW
@given(IMAGES, st.integers(150_000, 400_000), st.randoms(use_true_random=False))
@pytest.mark.slow
def test_carry_parts_in_any_order_are_the_whole(images: list[Made], limit: int, order: object) -> None:
    """Each part is imported by itself, in any order, some of them twice."""
    with folders() as (sender, receiver, path):
        put(sender, images)
        parts = exported(sender, path / "part.tar", EVERYTHING, split=limit)
        shuffled = [*parts, *parts[:2]]
        order.shuffle(shuffled)  # type: ignore[attr-defined]
        for each in shuffled:
            imported(receiver, each)
        (whole,) = exported(sender, path / "whole.tar", EVERYTHING)
        assert exported(receiver, path / "back.tar", EVERYTHING)[0].read_bytes() == whole.read_bytes()


@FEW
@given(IMAGES, IMAGES)
@pytest.mark.slow
def test_carry_delta_and_base_are_the_whole(before: list[Made], after: list[Made]) -> None:
    """A delta has no blob that the receiver has, and with these it is the whole."""
    with folders() as (sender, receiver, path):
        put(sender, before)
        imported(receiver, exported(sender, path / "base.tar", EVERYTHING)[0])
        known = have(receiver)
        put(sender, after)
        (whole,) = exported(sender, path / "whole.tar", EVERYTHING)
        (delta,) = exported(sender, path / "delta.tar", EVERYTHING, assumed=known)
        results = imported(receiver, delta)
        assert set(states(results).values()) <= {"imported", "present"}
        assert exported(receiver, path / "back.tar", EVERYTHING)[0].read_bytes() == whole.read_bytes()
