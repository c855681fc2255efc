"""The lines of one process: bandwidth of clients, by limit and by who shares it."""

from collections.abc import Iterator, Sequence

from mirror.access.identity import Identity
from mirror.access.limits import Per, Shared, who
from mirror.system.shared_table import SharedTable, TableRow
from mirror.util.fairness.line import Line

# Lines that are kept before idle ones are dropped.
KEPT_LINES = 1024


class TableSplit:
    """The share of this worker in a line, by what is active in all workers."""

    def __init__(self, row: TableRow, slot: int) -> None:
        self._row = row
        self._slot = slot

    def share(self, active: int) -> float:
        """Return the share, and tell the other workers what is active here."""
        self._row.note_active(self._slot, active)
        return max(active, 1) / max(self._row.active(self._slot), active, 1)


class Pacer:
    """The pace of one body, which goes over several lines."""

    def __init__(self, lines: Sequence[tuple[Line, str]]) -> None:
        """`lines`: each with the name of who takes from it."""
        self._lines = lines
        self._slice = min(line.slice for line, _ in lines)

    async def take(self, wanted: int) -> int:
        """Wait for the turn; return how many of the wanted bytes may be sent, at least one."""
        size = min(wanted, self._slice)
        for line, taker in self._lines:
            await line.take(taker, size)
        return size

    async def take_all(self, size: int) -> None:
        """Wait until a body of this size may be sent as a whole."""
        while size > 0:
            size -= await self.take(size)


class LineTable:
    """All lines of one process; `row` has its share in each."""

    def __init__(self, row: TableRow) -> None:
        self._row = row
        self._lines: dict[tuple[str, str], Line] = {}
        self._purge_at = KEPT_LINES

    def pacer(self, shared: Sequence[Shared], identity: Identity, body: str) -> Pacer | None:
        """Return the pacer of one body, which has the name `body`; None where no bandwidth is bounded.

        A line that several clients share is shared by client, one of a single client by body.
        """
        client = who(identity)
        own = [
            (line, body) for each, line in self._of(shared) if each.limit.per in (Per.CLIENT, Per.IDENTITY)
        ]
        common = [
            (line, client) for each, line in self._of(shared) if each.limit.per in (Per.NETWORK, Per.ALL)
        ]
        # The common ones last: nobody holds a turn there while he waits for his own line.
        return Pacer([*own, *common]) if own or common else None

    def charge(self, shared: Sequence[Shared], size: int) -> bool:
        """Take bytes that are sent at once from all lines; False, and nothing is taken, if one is in debt."""
        lines = [line for _, line in self._of(shared)]
        if any(line.in_debt for line in lines):
            return False
        for line in lines:
            line.charge(size)
        return True

    def _of(self, shared: Sequence[Shared]) -> Iterator[tuple[Shared, Line]]:
        for each in shared:
            if (rate := each.limit.bounds.bandwidth) is not None:
                yield each, self._line(each, rate)

    def _line(self, shared: Shared, rate: int) -> Line:
        key = (shared.limit.name, shared.sharer)
        if (found := self._lines.get(key)) is not None:
            return found
        if len(self._lines) >= self._purge_at:
            self._lines = {key: each for key, each in self._lines.items() if not each.idle}
            self._purge_at = max(KEPT_LINES, 2 * len(self._lines))
        slot = SharedTable.slot(("bandwidth", *key))
        line = self._lines[key] = Line(rate, TableSplit(self._row, slot), self._row.table.clock)
        return line
