"""A cron schedule in words, as far as words are clearer than its five fields."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from openvibe.errors import SetupError
from openvibe.scheduler.cron import Cron

WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
#: More times of a day than these nobody reads as a list.
MOST_TIMES = 4


def words(text: str) -> str:
    """Return the schedule as `Monday to Friday at 07:00`; an empty text if the fields say it better."""
    try:
        minutes, hours, days, months, weekdays = Cron(text).values
    except SetupError:
        return ""
    often, day = _often(minutes, hours), _day(days, months, weekdays)
    if not often or not day:
        return ""
    said = f"{day} {often}" if often.startswith("at") else f"{often}, {day}".removesuffix(", every day")
    return said[:1].upper() + said[1:]


def _often(minutes: Sequence[int], hours: Sequence[int]) -> str:
    if len(hours) == 24:
        return _within_the_hour(minutes)
    if len(minutes) == 1 and len(hours) <= MOST_TIMES:
        return f"at {_listed([f'{hour:02}:{minutes[0]:02}' for hour in hours])}"
    return ""


def _within_the_hour(minutes: Sequence[int]) -> str:
    if len(minutes) == 60:
        return "every minute"
    if len(minutes) == 1:
        return f"every hour at :{minutes[0]:02}" if minutes[0] else "every hour"
    step = minutes[1] - minutes[0]
    return f"every {step} minutes" if list(minutes) == list(range(0, 60, step)) and 60 % step == 0 else ""


def _day(days: Sequence[int], months: Sequence[int], weekdays: Sequence[int]) -> str:
    if len(days) < 31 and len(weekdays) < 7:
        # Either of the two is enough then, which no short sentence says.
        return ""
    year = "" if len(months) == 12 else f" in {_listed([MONTHS[month - 1] for month in months])}"
    if len(days) < 31:
        every = "of every month" if not year else "of the month"
        return f"on day {_listed([str(day) for day in days])} {every}{year}"
    return _weekdays(weekdays) + year


def _weekdays(weekdays: Sequence[int]) -> str:
    if len(weekdays) == 7:
        return "every day"
    # A week begins on Monday, whatever number cron gives to Sunday.
    ordered = sorted(weekdays, key=lambda day: (day - 1) % 7)
    names = [WEEKDAYS[day] for day in ordered]
    following = all((day + 1) % 7 == after for day, after in pairwise(ordered))
    if len(names) > 2 and following:
        return f"{names[0]} to {names[-1]}"
    return f"on {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
