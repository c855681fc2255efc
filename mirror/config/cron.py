"""Schedules: cron's five fields, and the time zone that they are in: `30 3 * * 1-5 Europe/Berlin`.

cronsim and zoneinfo are imported when a schedule is used: a mirror without one does without them.
"""

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from datetime import tzinfo

FORM = "must be cron's five fields and a time zone, for instance 30 3 * * 1-5 Europe/Berlin, or 0 4 * * * UTC"


class Schedule(Struct, frozen=True):
    """A schedule; moments are seconds since the epoch. In changes of the clock it goes as Debian's cron."""

    fields: str
    zone: str

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Parse a schedule. Raises ValueError with a message for its author."""
        *fields, zone = text.split() or [""]
        if len(fields) != 5:
            raise ValueError(FORM)
        schedule = cls(" ".join(fields), zone)
        _zone(zone)
        from cronsim import CronSimError

        try:
            schedule.next_after(0.0)
        except (CronSimError, StopIteration) as error:
            raise ValueError(f"{FORM}: {str(error) or 'it never comes'}") from None
        return schedule

    def next_after(self, moment: float) -> float:
        """Return the first moment of the schedule after `moment`."""
        return self._moment(moment, reverse=False)

    def last_until(self, moment: float) -> float:
        """Return the last moment of the schedule that is not after `moment`."""
        return self._moment(moment + 60.0, reverse=True)

    def _moment(self, moment: float, *, reverse: bool) -> float:
        from datetime import datetime

        from cronsim import CronSim

        start = datetime.fromtimestamp(moment // 60 * 60, _zone(self.zone))
        return float(next(CronSim(self.fields, start, reverse=reverse)).timestamp())


def _zone(name: str) -> "tzinfo":
    """Return a time zone. Raises ValueError."""
    from datetime import UTC

    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"{name!r} is not a time zone: {error}") from None
    except KeyError:
        raise ValueError(
            f"{name!r} is not a time zone of this machine, for instance Europe/Berlin; where all zones are "
            "missing, install the package tzdata, or use UTC"
        ) from None
