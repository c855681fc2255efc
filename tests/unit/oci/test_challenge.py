"""The parser of WWW-Authenticate, over everything that the grammar allows."""

import pytest

from mirror.oci.challenge import LONGEST_LINE, MOST_CHALLENGES, Challenge, parse_challenges

BEARER = 'Bearer realm="https://auth.test/token",service="reg.test",scope="repository:a/b:pull,push"'
PARAMETERS = {"realm": "https://auth.test/token", "service": "reg.test", "scope": "repository:a/b:pull,push"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([BEARER], [Challenge("bearer", PARAMETERS)]),
        (['Basic realm="x"', BEARER], [Challenge("basic", {"realm": "x"}), Challenge("bearer", PARAMETERS)]),
        (
            [f'Basic realm="x", {BEARER}'],
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", PARAMETERS)],
        ),
        ([f"{BEARER}, Basic"], [Challenge("bearer", PARAMETERS), Challenge("basic", {})]),
        (["Negotiate, Basic realm=x"], [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
        (["Negotiate abc+/==, Basic"], [Challenge("negotiate", {}), Challenge("basic", {})]),
        (['BEARER Realm = "a\\"b\\\\c"'], [Challenge("bearer", {"realm": 'a"b\\c'})]),
        (['Basic realm="first", realm="second"'], [Challenge("basic", {"realm": "first"})]),
        ([',, Basic realm="x" ,,'], [Challenge("basic", {"realm": "x"})]),
        (['"nonsense", Basic realm="x"'], [Challenge("basic", {"realm": "x"})]),
        ([""], []),
        ([], []),
        (["="], []),
    ],
)
def test_parse_challenges(headers: list[str], expected: list[Challenge]) -> None:
    """One or several challenges in one or several lines are parsed; malformed parts are skipped."""
    assert parse_challenges(headers) == expected


@pytest.mark.parametrize(
    "headers",
    [
        ["Bearer " + ",".join(f"a{each}=b" for each in range(20_000))],
        ["a," * 60_000],
        ["a " * 60_000],
        ["a b" * 40_000],
        [BEARER] * 5_000,
    ],
    ids=["parameters", "schemes", "words", "token68", "lines"],
)
def test_parse_challenges_reads_a_bounded_part(headers: list[str]) -> None:
    """A flood of parameters, challenges or lines costs no more than what is read of it."""
    found = parse_challenges(headers)
    assert len(found) <= MOST_CHALLENGES
    assert sum(len(each.parameters) for each in found) <= LONGEST_LINE
