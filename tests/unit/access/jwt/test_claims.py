"""Principals of proven tokens."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.access.jwt.claims import MOST_PRINCIPALS, principals_of
from tests.fakes.issuer import GITHUB, GITLAB, KUBERNETES


def test_principals_of_a_gitlab_job() -> None:
    """Lists give one each, and a claim that is not asked for none."""
    assert principals_of("gitlab", ("project_path", "ref_protected", "groups_direct", "none"), GITLAB) == (
        "jwt:gitlab:groups_direct=org",
        "jwt:gitlab:groups_direct=org/team",
        "jwt:gitlab:project_path:org/app:ref_type:branch:ref:main",
        "jwt:gitlab:project_path=org/app",
        "jwt:gitlab:ref_protected=true",
        "jwt:gitlab:sub=project_path:org/app:ref_type:branch:ref:main",
    )


def test_principals_of_a_github_job() -> None:
    assert principals_of("github", ("repository_owner", "run_attempt"), GITHUB) == (
        "jwt:github:repo:octo-org/octo-repo:environment:prod",
        "jwt:github:repository_owner=octo-org",
        "jwt:github:run_attempt=2",
        "jwt:github:sub=repo:octo-org/octo-repo:environment:prod",
    )


def test_principals_of_a_service_account() -> None:
    """A path leads to a claim inside of others; an object is no value."""
    wanted = ("kubernetes.io/namespace", "kubernetes.io/serviceaccount/name", "kubernetes.io", "a/b")
    assert principals_of("k8s", wanted, KUBERNETES) == (
        "jwt:k8s:kubernetes.io/namespace=ci",
        "jwt:k8s:kubernetes.io/serviceaccount/name=builder",
        "jwt:k8s:sub=system:serviceaccount:ci:builder",
        "jwt:k8s:system:serviceaccount:ci:builder",
    )


def test_principals_claim_with_a_slash_in_its_name() -> None:
    """A claim of that very name counts before a path."""
    claims = {"https://x.test/groups": ["dev", True, 7, None, 1.5, {}]}
    assert principals_of("x", ("https://x.test/groups",), claims) == (
        "jwt:x:https://x.test/groups=7",
        "jwt:x:https://x.test/groups=dev",
        "jwt:x:https://x.test/groups=true",
    )


@pytest.mark.parametrize("subject", ["ref_protected=true", "a/b=c", "kubernetes.io/namespace=ci", "=x"])
def test_principals_subject_is_not_taken_for_a_claim(subject: str) -> None:
    """A user who may choose the subject does not choose a claim."""
    assert principals_of("x", (), {"sub": subject}) == (f"jwt:x:sub={subject}",)


@pytest.mark.parametrize("value", ["", "x" * 513, "a\nb", "a\x00", "\x1b[31m", "\u202e", None, {}, 1.5])
def test_principals_leave_out_other_values(value: Any) -> None:
    assert principals_of("x", ("claim",), {"sub": value, "claim": value}) == ()


def test_principals_are_bounded() -> None:
    """A user of a thousand groups has the subject and the first groups."""
    found = principals_of("x", ("groups",), {"sub": "me", "groups": [f"g{each}" for each in range(1000)]})
    assert len(found) == MOST_PRINCIPALS
    assert "jwt:x:me" in found


VALUES = st.none() | st.booleans() | st.text(max_size=9) | st.lists(st.text(max_size=9), max_size=3)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["sub", "a", "a/b", ""]), VALUES), st.text(max_size=9))
def test_principals_of_any_claims(claims: dict[str, Any], wanted: str) -> None:
    """Each begins with the issuer's name, and is sorted."""
    found = principals_of("x", (wanted, *claims), claims)
    assert list(found) == sorted(found)
    assert all(each.startswith("jwt:x:") for each in found)
