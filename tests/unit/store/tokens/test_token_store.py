"""Tokens of a folder: created, revoked and used by several processes."""

from pathlib import Path

import pytest

from mirror.access.tokens import TokenEntry, digest_of
from mirror.store.invalidation import Epoch
from mirror.store.tokens.token_store import ListedToken, TokenExists, TokenStore

ONE = TokenEntry("one", digest_of("one"), 1.0)
TWO = TokenEntry("two", digest_of("two"), 2.0)


def store(folder: Path) -> tuple[TokenStore, Epoch]:
    """The tokens of a folder, as another process has them."""
    epoch = Epoch(folder / "generation")
    return TokenStore(folder, epoch), epoch


def test_token_change_is_told_to_all_processes(tmp_path: Path) -> None:
    """The access epoch changes with a creation and a revocation, and not where nothing has changed."""
    here, there = store(tmp_path), store(tmp_path)
    seen = [there[1].access_changes()]
    here[0].add(ONE)
    here[0].add(TWO)
    seen.append(there[1].access_changes())
    assert there[0].all() == [ONE, TWO]
    with pytest.raises(TokenExists):
        there[0].add(TokenEntry("one", digest_of("other"), 3.0))
    assert not here[0].remove("none")
    assert there[1].access_changes() == seen[1] != seen[0]
    assert there[0].remove("one")
    assert here[0].all() == [TWO]
    assert here[1].access_changes() != seen[1]


def test_token_uses_are_merged_and_end_with_the_token(tmp_path: Path) -> None:
    """The latest one of all workers counts; uses are no change of access."""
    (one, epoch), (other, _) = store(tmp_path), store(tmp_path)
    one.add(ONE)
    one.add(TWO)
    before = epoch.access_changes()
    one.note_uses({ONE.sha256: 100.0})
    other.note_uses({ONE.sha256: 90.0, TWO.sha256: 95.0})
    assert one.listed() == [ListedToken(ONE, 100.0), ListedToken(TWO, 95.0)]
    assert epoch.access_changes() == before
    one.remove("one")
    one.note_uses({TWO.sha256: 300.0, ONE.sha256: 300.0})
    assert one.listed() == [ListedToken(TWO, 300.0)]
    assert ONE.sha256 not in (tmp_path / "token-uses").read_text()


def test_token_uses_are_not_written_all_the_time(tmp_path: Path) -> None:
    """A use within a minute of the written one is no news."""
    one, _ = store(tmp_path)
    one.add(ONE)
    one.note_uses({ONE.sha256: 100.0})
    written = (tmp_path / "token-uses").stat().st_ino
    one.note_uses({ONE.sha256: 159.0})
    assert (tmp_path / "token-uses").stat().st_ino == written
    one.note_uses({ONE.sha256: 160.0})
    assert one.listed() == [ListedToken(ONE, 160.0)]


def test_token_store_outlives_its_process_and_a_restore(tmp_path: Path) -> None:
    """A copy of the file is a backup; a restored one has another signature."""
    one, _ = store(tmp_path)
    one.add(ONE)
    backup = (tmp_path / "tokens").read_bytes()
    one.remove("one")
    seen = one.signature()
    (tmp_path / "tokens").write_bytes(backup)
    other, _ = store(tmp_path)
    assert other.all() == [ONE]
    assert other.signature() != seen


def test_token_revocations_are_remembered_for_other_mirrors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remember a bounded number by digest, the newest last; damaged lines cost no other."""
    monkeypatch.setattr("mirror.store.tokens.token_store.MOST_REVOKED", 2)
    tokens, _ = store(tmp_path)
    entries = [ONE, TWO, TokenEntry("three", digest_of("three"), 3.0)]
    for each in entries:
        tokens.add(each)
    assert tokens.revoked() == []
    assert tokens.remove("one")
    assert tokens.remove_revoked({TWO.sha256, digest_of("unknown")}) == 1
    assert tokens.remove_revoked({TWO.sha256}) == 0
    assert tokens.revoked() == [ONE.sha256, TWO.sha256]
    assert tokens.remove("three")
    assert tokens.revoked() == [TWO.sha256, entries[2].sha256]
    with (tmp_path / "tokens-revoked").open("ab") as file:
        file.write(b"\xff\nnone\n")
    assert tokens.revoked() == [TWO.sha256, entries[2].sha256]
