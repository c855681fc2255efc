"""Proofs among mirrors: who is refused, and that a proof is about one request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.access.peer_proof import CLOCK_SECONDS, PeerProof, subject

SECRET = "a-secret-of-all-mirrors"
ABOUT = subject("sha256:abc", 5)


def test_proof_of_both_sides() -> None:
    """Each has the secret, and none sends it."""
    proof = PeerProof(SECRET)
    header, nonce = proof.request(ABOUT, 1000.4)
    assert proof.verify_request(header, ABOUT, 1000.0) == nonce
    assert proof.verify_answer(proof.answer(nonce, ABOUT), nonce, ABOUT)
    assert SECRET not in header + proof.answer(nonce, ABOUT)
    assert proof.request(ABOUT, 1000.4)[0] != header


def test_proof_of_another_request_is_refused() -> None:
    """Another secret, subject or time; an answer to another nonce, or a request as an answer."""
    proof, other = PeerProof(SECRET), PeerProof(SECRET + "!")
    header, nonce = proof.request(ABOUT, 1000)
    assert other.verify_request(header, ABOUT, 1000) is None
    assert proof.verify_request(header, subject("sha256:abc", 6), 1000) is None
    assert proof.verify_request(header, ABOUT, 1000 + CLOCK_SECONDS + 1) is None
    assert proof.verify_request(header, ABOUT, 1000 - CLOCK_SECONDS - 1) is None
    assert not proof.verify_answer(other.answer(nonce, ABOUT), nonce, ABOUT)
    assert not proof.verify_answer(proof.answer("0" * 32, ABOUT), nonce, ABOUT)
    assert not proof.verify_answer(header.rpartition(".")[2], nonce, ABOUT)


@pytest.mark.parametrize(
    "header", ["", "x", "1.2.3", f"{'9' * 13}.{'0' * 32}.{'0' * 64}", "\xe9" * 64, "\udce9"]
)
def test_proof_of_other_text_is_refused(header: str) -> None:
    """No text raises."""
    proof = PeerProof(SECRET)
    assert proof.verify_request(header, ABOUT, 0) is None
    assert not proof.verify_answer(header, "0" * 32, ABOUT)


@given(st.text(st.characters()))
def test_proof_of_any_text_is_refused(header: str) -> None:
    """No text that was not made with the secret is taken; bytes that are no text come as surrogates."""
    assert PeerProof(SECRET).verify_request(header, ABOUT, 0) is None
    assert not PeerProof(SECRET).verify_answer(header, "0" * 32, ABOUT)
