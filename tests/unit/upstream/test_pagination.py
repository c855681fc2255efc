"""Link headers of paged lists."""

import pytest

from mirror.upstream.pagination import next_query


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        (['</v2/a/tags/list?n=1&last=b>; rel="next"'], "n=1&last=b"),
        (["</v2/a/tags/list?last=b>; rel=next"], "last=b"),
        (['<https://internal:8443/v2/a/tags/list?n=1>; rel="next"'], "n=1"),
        (['</x?a=1>; rel="prev", </x?b=2>; rel="next"'], "b=2"),
        (['</x?a=1>; rel="prev"', '</x?b=2>; title="a, b; c" ; rel="last NEXT"'], "b=2"),
        (['</x?next_page=gAAA%3D%3D#f>;rel="next"'], "next_page=gAAA%3D%3D"),
        (['</x>; rel="next"'], None),
        (["</x?a=1>"], None),
        (['</x?a=1>; rel="nextish"'], None),
        (["nonsense; rel=next"], None),
        (['</x?last=a b\x1b\udcff>; rel="next"'], "last=a%20b%1B%FF"),
        (['< /x y?last=a b >; rel = "next"'], "last=a%20b"),
        (['</x?last=é&a=%20>; rel="next"'], "last=%C3%A9&a=%20"),
    ],
)
def test_next_query(headers: list[str], expected: str | None) -> None:
    """The query of the next page is found, to the byte, and no other link counts."""
    assert next_query(headers) == expected


@pytest.mark.parametrize(
    "headers",
    [["<>" * 60_000 + '</x?b=2>; rel="next"'], ['</x?a=1>; rel="prev"'] * 5_000 + ['</x?b=2>; rel="next"']],
    ids=["targets", "lines"],
)
def test_next_query_reads_a_bounded_part(headers: list[str]) -> None:
    """A link behind a flood of others is not read."""
    assert next_query(headers) is None
