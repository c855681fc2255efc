"""Names of client certificates: what each is as a principal, and what no certificate can claim."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.access.certificate import CertificateRefused, certificate_names, escape, seconds_left


def certificate(*common: str, **alternatives: str) -> dict[str, Any]:
    return {
        "subject": (
            (("organizationName", "Org"),),
            *(((("commonName", each),)) for each in common),
        ),
        "subjectAltName": tuple(alternatives.items()),
    }


def test_certificate_names_are_principals() -> None:
    """The common name and all alternative names but addresses; lower case where case is no matter."""
    found = certificate("Build 1") | {
        "subjectAltName": (
            ("DNS", "Build1.LAN"),
            ("DNS", "*.ci.lan"),
            ("URI", "spiffe://lan/ns/Prod"),
            ("email", "Ops@Example.COM"),
            ("IP Address", "10.0.0.1"),
            ("DirName", ((("commonName", "other"),),)),
        )
    }
    assert certificate_names(found) == (
        "cert:Build%201",
        "san:%2A.ci.lan",
        "san:Ops@example.com",
        "san:build1.lan",
        "san:spiffe://lan/ns/Prod",
    )


def test_certificate_without_names_has_no_principal() -> None:
    assert certificate_names({"subject": ((("organizationName", "Org"),),)}) == ()
    assert certificate_names({}) == ()
    assert certificate_names(certificate("")) == ()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (certificate("a", "b"), "more than one common name"),
        (certificate("a" * 256), "longer than 255"),
        (certificate("a") | {"subjectAltName": (("DNS", "x.lan"),) * 33}, "more than 32"),
        (certificate(DNS="a b"), "DNS name in it is none"),
        (certificate(DNS="a@b.lan"), "DNS name in it is none"),
        (certificate(DNS="user:x"), "DNS name in it is none"),
        (certificate(DNS=""), "DNS name in it is none"),
        (certificate(URI="build1.lan"), "URI in it is none"),
        (certificate(URI="spiffe://a b"), "URI in it is none"),
        (certificate(email="build1.lan"), "email address in it is none"),
        (certificate(email="a@b@c"), "email address in it is none"),
        (certificate(email="spiffe://x@y"), "email address in it is none"),
    ],
)
def test_certificate_with_an_uncertain_name_is_refused(found: dict[str, Any], reason: str) -> None:
    """Not ignored: a rule might deny the name that is left out."""
    with pytest.raises(CertificateRefused, match=reason):
        certificate_names(found)


@pytest.mark.parametrize(
    ("common", "name"),
    [
        ("alice\x00.evil", "cert:alice%00.evil"),
        ("alice, cert:root", "cert:alice%2C%20cert:root"),
        ("*", "cert:%2A"),
        ("[a-z]?", "cert:%5Ba-z%5D%3F"),
        ("100%41", "cert:100%2541"),
        ("J\u00fcrgen", "cert:J%C3%BCrgen"),
        ("a\nb", "cert:a%0Ab"),
        ("\u202eecila", "cert:%E2%80%AEecila"),
    ],
)
def test_odd_characters_of_a_name_are_escaped(common: str, name: str) -> None:
    assert certificate_names(certificate(common)) == (name,)


@given(st.text(max_size=40), st.text(max_size=40))
def test_two_names_are_never_written_alike(one: str, other: str) -> None:
    """The escape is reversible, and leaves no space, comma, control character or character of a pattern."""
    try:
        written = escape(one), escape(other)
    except CertificateRefused:
        return
    assert (written[0] == written[1]) == (one == other)
    assert not set(written[0]) & set(" ,*?[]\"'\\\n\r\0")
    assert written[0].isascii()


def test_certificate_ends_in_some_seconds() -> None:
    """An expired one is refused: a resumed session may have one."""
    found = {"notAfter": "Nov 28 20:00:00 2026 GMT"}
    end = 1795896000.0
    assert seconds_left(found, end - 90) == 90
    with pytest.raises(CertificateRefused, match="expired"):
        seconds_left(found, end)
