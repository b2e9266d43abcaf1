"""Months and the instants they begin at, in zones whose midnights are skipped or come twice."""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement.errors import BadConfig, WrongUsage
from settlement.month import (
    Month,
    Period,
    instant_text,
    is_over,
    last_ended,
    months_between,
    zone_named,
)

SHANGHAI = ZoneInfo("Asia/Shanghai")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Where each month begins, in UTC, and what is odd about that local midnight.
BEGINNINGS = """
Asia/Shanghai        2026-02  2026-01-31T16:00:00Z
Asia/Shanghai        1970-01  1969-12-31T16:00:00Z
UTC                  2026-02  2026-02-01T00:00:00Z
Asia/Kathmandu       2026-02  2026-01-31T18:15:00Z
America/New_York     2026-03  2026-03-01T05:00:00Z
America/New_York     2026-04  2026-04-01T04:00:00Z
Pacific/Kiritimati   2026-02  2026-01-31T10:00:00Z
Pacific/Niue         2026-02  2026-02-01T11:00:00Z
Africa/Cairo         2014-08  2014-07-31T22:00:00Z  skipped
Asia/Damascus        2004-04  2004-03-31T22:00:00Z  skipped
America/Asuncion     2023-10  2023-10-01T04:00:00Z  skipped
America/Havana       2012-04  2012-04-01T05:00:00Z  skipped
America/El_Salvador  1988-05  1988-05-01T06:00:00Z  skipped
America/Havana       2026-11  2026-11-01T04:00:00Z  twice
America/Managua      2006-10  2006-10-01T05:00:00Z  twice
America/St_Johns     2009-11  2009-11-01T02:30:00Z  twice
"""
DRAWN = [[*line.split(), ""][:4] for line in BEGINNINGS.strip().splitlines()]
"""The last clocks of St John's went back at 00:01, from the first into the day before."""


@pytest.mark.parametrize(("zone", "month", "begins", "midnight"), DRAWN)
def test_a_month_begins_at_the_first_instant_of_its_first_day(
    zone: str, month: str, begins: str, midnight: str
) -> None:
    start = Month.parse(month).period(ZoneInfo(zone)).start
    assert instant_text(start) == begins
    if month != "1970-01":
        assert Month.parse(month).previous.period(ZoneInfo(zone)).end == start
    local = (EPOCH + timedelta(seconds=start)).astimezone(ZoneInfo(zone))
    assert (local.time() != datetime.min.time()) == (midnight == "skipped")
    later = (local.replace(fold=1).astimezone(UTC), local.astimezone(UTC))
    assert (later[0] != later[1]) == (midnight == "twice")


def test_the_billing_period_of_the_document() -> None:
    period = Month.parse("2026-02").period(SHANGHAI)
    assert (period.start_text, period.end_text) == (
        "2026-01-31T16:00:00Z",
        "2026-02-28T16:00:00Z",
    )


@cache
def first_minute(zone: str, day: date) -> int:
    """Search for the first minute of a local day, one by one, from two days before."""
    instant = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=2)
    while instant.astimezone(ZoneInfo(zone)).date() < day:
        instant += timedelta(minutes=1)
    return int((instant - EPOCH).total_seconds())


ODD_ZONES = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Asuncion",
    "America/Havana",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Amman",
    "Asia/Beirut",
    "Asia/Damascus",
    "Asia/Gaza",
    "Asia/Tehran",
    "Asia/Shanghai",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Apia",
]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ODD_ZONES), st.integers(1973, 2030), st.integers(1, 12))
def test_the_beginning_is_what_a_search_minute_by_minute_finds(
    zone: str, year: int, number: int
) -> None:
    start = Month(year, number).period(ZoneInfo(zone)).start
    assert start == first_minute(zone, date(year, number, 1))


@pytest.mark.parametrize(
    ("zone", "day", "skipped"),
    [
        ("America/Sao_Paulo", date(2018, 11, 4), True),
        ("Asia/Beirut", date(2022, 3, 27), True),
        ("Africa/Cairo", date(2023, 4, 28), True),
        ("Asia/Amman", date(2011, 4, 1), True),
        ("America/Toronto", date(1919, 3, 31), True),  # from 23:30 to 00:30
        ("America/Sao_Paulo", date(2019, 2, 17), False),
        ("Pacific/Apia", date(2011, 12, 31), False),
    ],
)
def test_days_whose_midnight_does_not_exist(zone: str, day: date, skipped: bool) -> None:
    from settlement import month

    start = month._first_instant(day, ZoneInfo(zone))
    assert start == first_minute(zone, day)
    local = (EPOCH + timedelta(seconds=start)).astimezone(ZoneInfo(zone))
    assert (local.time() != datetime.min.time()) == skipped


@given(st.sampled_from(ODD_ZONES), st.integers(1970, 9997), st.integers(1, 12))
def test_months_lie_end_to_end_and_last_27_to_32_days(zone: str, year: int, number: int) -> None:
    month = Month(year, number)
    period, following = month.period(ZoneInfo(zone)), month.next.period(ZoneInfo(zone))
    assert period.end == following.start
    assert 27 <= (period.end - period.start) / 86_400 <= 32
    assert month.next.previous == month
    assert month < month.next


def test_bounds_in_a_columns_unit_may_lie_beyond_int64() -> None:
    last = Month.parse("9998-12").period(ZoneInfo("UTC"))
    assert last.end_text == "9999-01-01T00:00:00Z"
    assert last.bounds("s") == (253368086400, 253370764800)
    assert last.bounds("ns") == (253368086400 * 10**9, 253370764800 * 10**9)
    assert last.bounds("ns")[1] > 2**63
    assert Period(-1, 1).bounds("ms") == (-1000, 1000)
    assert Period(-1, 1).bounds("us") == (-1_000_000, 1_000_000)


@pytest.mark.parametrize("text", ["2026-02", "1970-01", "9998-12"])
def test_a_month_is_written_as_it_is_read(text: str) -> None:
    assert str(Month.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-2",
        "2026-00",
        "2026-13",
        "1969-12",
        "9999-01",
        "2026-02-01",
        "2026/02",
        "202602",
        " 2026-02",
        "2026-02\n",
        "２０２６-02",
        "-026-02",
        "latest",
    ],
)
def test_anything_else_is_not_a_month(text: str) -> None:
    with pytest.raises(WrongUsage) as refused:
        Month.parse(text)
    assert len(str(refused.value).splitlines()) == 1


def test_months_between_two() -> None:
    between = months_between(Month.parse("2025-11"), Month.parse("2026-02"))
    assert list(map(str, between)) == ["2025-12", "2026-01"]
    assert months_between(Month.parse("2026-01"), Month.parse("2026-02")) == []
    assert months_between(Month.parse("2026-02"), Month.parse("2026-02")) == []
    assert months_between(Month.parse("2026-02"), Month.parse("2026-01")) == []


@pytest.mark.parametrize(
    ("zone", "now", "ended"),
    [
        ("Asia/Shanghai", "2026-02-28T15:59:59.999999Z", "2026-01"),
        ("Asia/Shanghai", "2026-02-28T16:00:00Z", "2026-02"),
        ("UTC", "2026-02-28T16:00:00Z", "2026-01"),
        ("America/New_York", "2026-03-01T04:59:59Z", "2026-01"),
        ("America/New_York", "2026-03-01T05:00:00Z", "2026-02"),
        ("Asia/Shanghai", "2025-12-31T16:00:00Z", "2025-12"),
        ("America/St_Johns", "2009-11-01T02:29:59Z", "2009-09"),
        ("America/St_Johns", "2009-11-01T02:30:00Z", "2009-10"),
        ("America/St_Johns", "2009-11-01T02:45:00Z", "2009-10"),  # the clock says 31 October again
    ],
)
def test_the_month_that_last_ended(zone: str, now: str, ended: str) -> None:
    instant, place = datetime.fromisoformat(now), ZoneInfo(zone)
    assert str(last_ended(instant, place)) == ended
    assert is_over(Month.parse(ended), instant, place)
    assert not is_over(Month.parse(ended).next, instant, place)


def test_an_instant_lies_in_the_month_of_its_local_date() -> None:
    instant = datetime(2026, 1, 31, 16, tzinfo=UTC)
    assert str(Month.of(instant, SHANGHAI)) == "2026-02"
    assert str(Month.of(instant, ZoneInfo("UTC"))) == "2026-01"


@pytest.mark.parametrize("name", ["", "Asia/Nowhere", "../etc/passwd", "Asia", "a\0b", "x" * 5000])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(BadConfig, match="unknown time zone"):
        zone_named(name)


def test_known_zones_are_found() -> None:
    assert zone_named("Asia/Shanghai").key == "Asia/Shanghai"
