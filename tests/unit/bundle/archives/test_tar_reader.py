"""Strict reading of tars."""

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.bundle.archives.limits import Limits
from mirror.bundle.archives.stream import open_stream
from mirror.bundle.archives.tar_reader import TarReader
from mirror.bundle.errors import BundleError, Damaged, EntryRefused
from mirror.bundle.tar_format import END, header, padding


def reader(data: bytes, limits: Limits | None = None) -> TarReader:
    used = limits or Limits()
    return TarReader(open_stream(io.BytesIO(data), used), used)


def files(data: bytes) -> dict[str, bytes]:
    """Every file of a tar, read in small steps."""
    found = {}
    tar = reader(data)
    for entry in tar:
        content = bytearray(entry.size)
        view = memoryview(content)
        while count := tar.readinto(view[:777]):
            view = view[count:]
        found[entry.name] = bytes(content)
    return found


def tar_of(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for entry, data in entries:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def entry(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(made, key, value)
    return made


LONG = f"{'d' * 120}/{'n' * 200}"


@settings(max_examples=50, deadline=None)
@given(
    contents=st.dictionaries(
        st.text("abcé/ ", min_size=1, max_size=200).filter(lambda name: "" not in name.split("/")),
        st.binary(max_size=2000),
        max_size=5,
    ),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_tar_of_python_is_read(contents: dict[str, bytes], form: int) -> None:
    """Names of any length, in pax and in GNU form."""
    assert files(tar_of(*((entry(name), data) for name, data in contents.items()), form=form)) == contents


@pytest.mark.parametrize("form", ["pax", "gnu", "ustar", "v7"])
def test_tar_of_gnu_tar_is_read(tmp_path: Path, form: str) -> None:
    """Folders are passed over, `./` is no part of a name, times with fractions do no harm."""
    folder = tmp_path / "folder"
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / ("n" * 90)).write_bytes(b"some")
    (folder / "index.json").write_bytes(b"{}")
    done = subprocess.run(
        ["tar", "-C", folder, f"--format={form}", "-c", "."], capture_output=True, check=True
    )
    assert files(done.stdout) == {"blobs/" + "n" * 90: b"some", "index.json": b"{}"}


def test_tar_with_a_folder_of_the_old_form_is_read() -> None:
    """A name with a slash at its end is a folder."""
    assert files(tar_of((entry("blobs/", type=tarfile.DIRTYPE), b""), (entry("a"), b"x"))) == {"a": b"x"}


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (entry("a", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a: a symbolic link"),
        (entry("a", type=tarfile.LNKTYPE, linkname="b"), "a: a hard link"),
        (entry("a", type=tarfile.CHRTYPE), "a: a device"),
        (entry("a", type=tarfile.BLKTYPE), "a: a device"),
        (entry("a", type=tarfile.FIFOTYPE), "a: a pipe"),
        (entry("a", type=b"V"), "a: an entry of type"),
        (entry("a", pax_headers={"GNU.sparse.major": "1"}), "a: a sparse file"),
        (entry("../a"), "leaves the folder"),
        (entry("/a"), "absolute"),
        (entry(LONG + "/../a"), "leaves the folder"),
        (entry("a\nb"), "control characters"),
    ],
)
def test_entry_that_is_unsafe_is_refused_by_name(made: tarfile.TarInfo, match: str) -> None:
    """Nothing of it is read, and nothing behind it."""
    with pytest.raises(EntryRefused, match=match):
        files(tar_of((made, b"")))


def test_gnu_sparse_file_is_refused() -> None:
    """The stated size is not that of the content."""
    block = bytearray(header("a", 0))
    block[156:157] = b"S"
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    with pytest.raises(EntryRefused, match="sparse"):
        files(bytes(block) + END)


def test_global_header_may_not_name_entries() -> None:
    """A comment is harmless; git writes one."""

    def global_header(text: bytes) -> bytes:
        block = bytearray(header("g", len(text)))
        block[156:157] = b"g"
        block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
        return bytes(block) + text + bytes(padding(len(text)))

    rest = header("a", 1) + b"x" + bytes(511) + END
    assert files(global_header(b"13 comment=a\n") + rest) == {"a": b"x"}
    with pytest.raises(EntryRefused, match="global"):
        files(global_header(b"10 path=a\n"[:10]) + rest)


@pytest.mark.parametrize(
    "record", [b"", b"5 a=b\n", b"999 a=b\n", b"x a=b\n", b"0 a=b\n", b"6 abc\n", b"8 size=x\n"]
)
def test_pax_header_that_is_damaged_is_refused(record: bytes) -> None:
    """Lengths must fit; an empty one says nothing."""
    block = bytearray(header("p", len(record)))
    block[156:157] = b"x"
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    data = bytes(block) + record + bytes(padding(len(record))) + header("a", 1) + b"x" + bytes(511) + END
    if record:
        with pytest.raises(Damaged):
            files(data)
    else:
        assert files(data) == {"a": b"x"}


def test_tar_that_is_cut_short_anywhere_is_refused() -> None:
    """The same holds between two files, where other readers see an end."""
    data = tar_of((entry("a"), b"x" * 700), (entry("b"), b"y"))
    for end in range(0, 512 + 1024 + 1024, 64):
        with pytest.raises(Damaged):
            files(data[:end])


def test_tar_with_a_changed_header_is_refused() -> None:
    """Each bit of a header but its padding and the writing of its checksum."""
    data = tar_of((entry("a"), b"x"))
    for place in [*range(148), *range(157, 500)]:
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(BundleError):
            files(bytes(changed))


def test_something_behind_the_end_is_refused() -> None:
    """Zeros are not."""
    data = tar_of((entry("a"), b"x"))
    assert files(data + bytes(20_000)) == {"a": b"x"}
    with pytest.raises(Damaged, match="behind the end"):
        files(data + b"x")


def test_entry_larger_than_the_file_is_refused_at_once() -> None:
    """A stated size of terabytes costs nothing."""
    with pytest.raises(Damaged, match="cut short"):
        files(header("a", 10**11) + END)
    with pytest.raises(EntryRefused, match="more than"):
        files(header("a", 10**15) + END)


def test_number_of_entries_is_limited() -> None:
    """Folders and extra headers count."""
    many = b"".join(header(f"{number}", 0) for number in range(11)) + END
    assert len(list(reader(many, Limits(entries=11)))) == 11
    with pytest.raises(EntryRefused, match="more than 10 entries"):
        list(reader(many, Limits(entries=10)))


def test_extra_header_without_end_is_refused() -> None:
    """Memory is bounded."""
    block = bytearray(header("p", 10**9))
    block[156:157] = b"x"
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    with pytest.raises(EntryRefused, match="extra header"):
        files(bytes(block) * 3)


@pytest.mark.parametrize(
    ("change", "exact"),
    [
        (lambda data: data, True),
        (lambda data: data + bytes(512), False),
        (lambda data: data[:-512], False),
        (lambda data: data[:513] + b"x" + data[514:], False),
        (lambda data: data[:155] + b"\0" + data[156:], False),
    ],
    ids=["as written", "longer", "shorter", "fill", "checksum"],
)
def test_exact_is_the_very_bytes_of_the_writer(change: Callable[[bytes], bytes], exact: bool) -> None:
    """Other tars can be read all the same."""
    data = change(header("a", 1) + b"x" + bytes(511) + header("b", 0) + END)
    tar = reader(data)
    assert [each.name for each in tar] == ["a", "b"]
    assert tar.exact == exact
