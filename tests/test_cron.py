"""Cron fields: what they may say, and when they fire over changes of the clock."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.operations.cron import Cron
from tests.drawn import rows

FIRES = """
zone              fields          from                  fires in UTC
---
Asia/Shanghai     0_2_*_*_*       2026-02-27T17:59:59Z  27T18:00  28T18:00  01T18:00
Asia/Shanghai     0_2_*_*_*       2026-02-27T18:00:00Z  28T18:00  01T18:00  02T18:00
Asia/Shanghai     0_2_*_*_*       2026-02-27T18:00:01Z  28T18:00  01T18:00  02T18:00
America/New_York  30_1_*_*_*      2026-10-31T12:00:00Z  01T05:30  02T06:30  03T06:30
America/New_York  30_1_*_*_*      2026-11-01T05:45:00Z  02T06:30  03T06:30  04T06:30
America/New_York  30_1_*_*_*      2026-11-01T06:15:00Z  02T06:30  03T06:30  04T06:30
America/New_York  0_2_*_*_*       2026-11-01T06:15:00Z  01T07:00  02T07:00  03T07:00
America/New_York  0_2_*_*_*       2026-10-31T12:00:00Z  01T07:00  02T07:00  03T07:00
America/New_York  30_0_*_*_*      2026-03-07T12:00:00Z  08T05:30  09T04:30  10T04:30
America/New_York  30_2_*_*_*      2026-03-07T12:00:00Z  08T07:30  09T06:30  10T06:30
Europe/Berlin     30_2_*_*_*      2026-10-24T12:00:00Z  25T00:30  26T01:30  27T01:30
America/New_York  0,30_1-2_*_*_*  2026-10-31T12:00:00Z  01T05:00  01T05:30  01T07:00  01T07:30
America/New_York  30_2,3_*_*_*    2026-03-08T00:00:00Z  08T07:30  09T06:30  09T07:30
America/New_York  45_2_*_*_*      2026-03-08T07:10:00Z  08T07:45  09T06:45  10T06:45
Pacific/Apia      0_2_*_*_*       2011-12-29T00:00:00Z  29T12:00  30T12:00  31T12:00
Asia/Shanghai     0_2_1-3_*_*     2026-02-27T17:59:59Z  28T18:00  01T18:00  02T18:00  31T18:00
Asia/Shanghai     0_2_1_*/6_*     2026-01-15T00:00:00Z  30T18:00  31T18:00  30T18:00
Asia/Shanghai     0_20_*_*_mon    2026-02-27T00:00:00Z  02T12:00  09T12:00  16T12:00
Asia/Shanghai     0_20_*_*_1      2026-02-27T00:00:00Z  02T12:00  09T12:00  16T12:00
Asia/Shanghai     0_20_*_*_7      2026-02-27T00:00:00Z  01T12:00  08T12:00  15T12:00
Asia/Shanghai     0_20_*_*_0      2026-02-27T00:00:00Z  01T12:00  08T12:00  15T12:00
Asia/Shanghai     0_20_3_*_fri    2026-02-28T00:00:00Z  03T12:00  06T12:00  13T12:00
Asia/Shanghai     0_20_*/2_*_fri  2026-02-28T00:00:00Z  13T12:00  27T12:00  03T12:00
UTC               0_0_29_2_*      2026-01-01T00:00:00Z  29T00:00  29T00:00
UTC               */20_5_*_*_*    2026-01-01T05:10:00Z  01T05:20  01T05:40  02T05:00
UTC               50/5_5_*_*_*    2026-01-01T05:10:00Z  01T05:50  01T05:55  02T05:50
UTC               1-9/4_5_*_*_*   2026-01-01T05:00:00Z  01T05:01  01T05:05  01T05:09  02T05:01
"""


def fires(cron: Cron, zone: ZoneInfo, start: datetime) -> Iterator[datetime]:
    """Fire times in UTC, each asked for when the one before it has fired."""
    fire = start
    while True:
        fire = cron.after(fire, zone)
        yield fire.astimezone(UTC)


@pytest.mark.parametrize("row", rows(FIRES)[1:], ids=" ".join)
def test_fields_fire_when_they_should(row: list[str]) -> None:
    zone, fields, start, *expected = row
    cron = Cron.parse(fields.replace("_", " "))
    found = islice(fires(cron, ZoneInfo(zone), datetime.fromisoformat(start)), len(expected))
    assert [f"{fire:%dT%H:%M}" for fire in found] == expected


ZONES = ["America/New_York", "America/Havana", "Australia/Lord_Howe", "Africa/Cairo"]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("at", ["00:00", "00:30", "01:30", "01:45", "02:00", "02:30", "23:30"])
def test_a_time_of_day_fires_on_every_local_date_of_a_year(zone: str, at: str) -> None:
    cron = Cron.daily(datetime.strptime(at, "%H:%M").time())
    found = [
        fire.astimezone(ZoneInfo(zone))
        for fire in islice(fires(cron, ZoneInfo(zone), datetime(2026, 1, 2, tzinfo=UTC)), 366)
    ]
    assert all(later.date() - fire.date() == timedelta(days=1) for fire, later in pairwise(found))


@given(
    st.sampled_from([*ZONES, "Asia/Shanghai", "Pacific/Apia", "Europe/Dublin"]),
    st.sampled_from(["*/17 * * * *", "30 1,2 * * *", "15 0,23 * * 0,3", "59 23 1,31 * *"]),
    st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1)),
)
def test_what_fires_next_is_the_first_of_all_local_times(
    name: str, fields: str, start: datetime
) -> None:
    zone, cron, instant = ZoneInfo(name), Cron.parse(fields), start.replace(tzinfo=UTC)
    fire = cron.after(instant, zone)
    assert fire > instant
    # Every local minute of the dates around, naively: which of them fire, and when that is.
    day = instant.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    minutes = (day + timedelta(days=-2, minutes=n) for n in range(4 * 1440))
    expected = [
        minute.replace(tzinfo=zone).astimezone(UTC)
        for minute in minutes
        if minute.hour in cron.hours
        and minute.minute in cron.minutes
        and minute.day in cron.days
        and minute.isoweekday() % 7 in cron.weekdays
    ]
    later = min((each for each in expected if each > instant), default=None)
    assert fire == later if later else fire > max(expected, default=instant)


WRONG = """
fields            says
---
·                 not five cron fields
0_2_*_*           not five cron fields
0_2_*_*_*_*       not five cron fields
60_2_*_*_*        minute from 0 to 59
0_24_*_*_*        hour from 0 to 23
0_2_0_*_*         day from 1 to 31
0_2_*_13_*        month from 1 to 12
0_2_*_*_8         weekday from 0 to 7
0_2_*_*_fry       weekday from 0 to 7
0_2_mon_*_*       day from 1 to 31
5-3_2_*_*_*       minute from 0 to 59
*/0_2_*_*_*       minute from 0 to 59
1,,2_2_*_*_*      minute from 0 to 59
-1_2_*_*_*        minute from 0 to 59
0_2_30_2_*        never happens
0_2_31_feb,apr_*  never happens
"""


@pytest.mark.parametrize("row", rows(WRONG)[1:], ids=" ".join)
def test_fields_that_mean_nothing_are_refused(row: list[str]) -> None:
    fields, *says = row
    text = "" if fields == "·" else fields.replace("_", " ")
    with pytest.raises(ValueError, match=" ".join(says)):
        Cron.parse(text)
