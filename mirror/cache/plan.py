"""What to fetch next: a pure function of what is missing and what readers wait for.

One stream per fill so far. The answer is a range and not a chunk, because one long request costs one
round trip; a second connection would take a range out of the rest of the same gaps.
"""

from collections.abc import Iterable, Sequence

from mirror.oci.ranges import Span


def next_range(missing: Sequence[Span], wanted: Iterable[int]) -> Span | None:
    """The range to ask for now; None when nothing is missing.

    `missing` are the gaps in order. `wanted` are offsets that readers have come to: the one nearest to the
    start of a gap that holds it goes first, and without any the first gap does.
    """
    if not missing:
        return None
    for offset in sorted(wanted):
        for gap in missing:
            if offset < gap.stop:
                return gap
    return missing[0]
