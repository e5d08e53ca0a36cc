"""The one reader of cron schedules: every scheduler asks it when, so that all of them fire at the same times."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from openvibe.errors import SetupError

FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")
REMEDY = "write five fields, minute hour day-of-month month day-of-week, such as '0 9 * * 1-5'"
_NAMES = "SUN|MON|TUE|WED|THU|FRI|SAT|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_FIELD = re.compile(rf"(?:{_NAMES}|[0-9*,/-])+", re.IGNORECASE)
#: No clock change moves a slot further than this.
_CLOCK_CHANGE = timedelta(hours=3)
_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cron:
    """A schedule of five fields in one time zone, read as Debian's cron reads it.

    A field is `*`, a number, a range (`1-5`), a list (`1,4`) or steps (`*/15`, `8-18/2`); months and days of the week
    also go by their first three letters (`MON-FRI`), and Sunday is 0 or 7. Where day-of-month and day-of-week are both
    restricted, either one suffices. A slot that the clock skips in spring comes when the gap ends; one that an autumn
    hour would repeat comes once, unless its minute or its hour is a `*`.

    Raises:
        SetupError: the text is no such schedule, never comes, or the time zone is not known.

    Example:
        >>> Cron("0 9 * * 1-5").after(datetime(2026, 10, 2, 12, tzinfo=UTC))
        datetime.datetime(2026, 10, 5, 9, 0, tzinfo=datetime.timezone.utc)
    """

    text: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if problem := self.problem(self.text):
            raise SetupError(problem)
        zone(self.timezone)

    @staticmethod
    def problem(text: str) -> str:
        """Tell what is wrong with a schedule and what to write instead; an empty text if nothing is."""
        fields = text.split()
        if len(fields) != len(FIELDS):
            return f"Cron {text!r} has {len(fields)} fields; {REMEDY}"
        for name, field in zip(FIELDS, fields, strict=True):
            if not _FIELD.fullmatch(field):
                return f"Cron {text!r}: {field!r} is no {name}; {REMEDY}"
        try:
            next(CronSim(text, _ANY_TIME))
        except CronSimError as error:
            name = str(error).removeprefix("Bad ")
            wrong = fields[FIELDS.index(name)] if name in FIELDS else text
            return f"Cron {text!r}: {wrong!r} is no {name}; {REMEDY}"
        except StopIteration:
            return f"Cron {text!r} never comes; {REMEDY}"
        return ""

    def after(self, moment: datetime) -> datetime:
        """Return the first slot after an aware datetime, in UTC."""
        return next(self._slots(moment))

    def before(self, moment: datetime) -> datetime:
        """Return the last slot at or before an aware datetime, in UTC."""
        start, last = moment, None
        while last is None:
            # Backwards the reader treats clock changes in another way, so it only tells where to begin.
            back = CronSim(self.text, start.astimezone(zone(self.timezone)), reverse=True)
            start = next(back) - (timedelta(seconds=1) if self.timezone == "UTC" else _CLOCK_CHANGE)
            for slot in itertools.takewhile(lambda slot: slot <= moment, self._slots(start)):
                last = slot
        return last

    def _slots(self, moment: datetime) -> Iterator[datetime]:
        for slot in CronSim(self.text, moment.astimezone(zone(self.timezone))):
            # In the hour that autumn repeats the reader takes the first one for the second.
            if (found := slot.astimezone(UTC)) > moment:
                yield found

    @property
    def values(self) -> tuple[tuple[int, ...], ...]:
        """The numbers that each of the five fields allows, Sunday being 0."""
        read = CronSim(self.text, _ANY_TIME)
        weekdays = {int(day) % 7 for day in read.weekdays if isinstance(day, int)}
        parts = (read.minutes, read.hours, read.days, read.months, weekdays)
        return tuple(tuple(sorted(part)) for part in parts)


def zone(name: str) -> tzinfo:
    """Return the time zone of that name. Raises `SetupError` if there is none."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:
        raise SetupError(f"No time zone is called {name!r}; use one such as UTC or Europe/Berlin") from error
