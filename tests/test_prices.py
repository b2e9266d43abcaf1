"""The price book: the document's prices, every refusal, and the bounds at which a bill falls."""

import json
from datetime import date
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from settlement import money
from settlement.errors import BadInput, SettlementError
from settlement.month import Month
from settlement.prices import Item, Mode, PriceBook, Tier, TierBasis, amount_due, falls
from tests.drawn import rows

DOCUMENT = PriceBook.parse(
    (Path(__file__).parent.parent / "data" / "price_book.toml").read_bytes(), "price_book.toml"
)

# The billing document's price table: yuan per call in each of its four tiers.
#                                   ≤ 10 000 ≤ 3 000 000 ≤ 15 000 000 above
PRICES = """
face-detection     人脸检测与分析    0   0.0005  0.0004  0.0003
facial-landmarks   五官定位          0   0.002   0.0018  0.0015
face-comparison    人脸比对          0   0.0032  0.003   0.0027
face-verification  人脸验证          0   0.0032  0.003   0.0027
face-search        人脸检索          0   0.0032  0.003   0.0027
multi-face-search  多脸检索          0   0.0032  0.003   0.0027
static-liveness    人脸静态活体检测  0   0.0019  0.0017  0.0013
"""

INTERFACES = """
face-detection     DetectFace
facial-landmarks   AnalyzeFace
face-comparison    CompareFace
face-verification  CreatePerson CreateFace VerifyFace
face-search        CreatePerson CreateFace SearchFaces
multi-face-search  CreatePerson CreateFace SearchMultiFaces
static-liveness    DetectLiveFace
"""


def test_the_shipped_price_book_says_what_the_document_says() -> None:
    (version,) = DOCUMENT.versions
    said = [
        [item.code, item.name, *(money.text(tier.unit_price, 0) for tier in item.tiers)]
        for item in version.items
    ]
    assert said == rows(PRICES)
    assert [[item.code, *item.interfaces] for item in version.items] == rows(INTERFACES)
    for item in version.items:
        assert [tier.up_to for tier in item.tiers] == [10_000, 3_000_000, 15_000_000, None]
        assert (item.free_calls, item.mode, item.tier_basis) == (1000, "volume", "gross")
    assert (DOCUMENT.currency.code, DOCUMENT.timezone) == ("CNY", "Asia/Shanghai")
    assert DOCUMENT.zone.key == "Asia/Shanghai"
    assert str(version.effective_from) == "2018-01"
    assert (version.freeze.factor, version.freeze.base) == (Fraction(12, 10), "payable")
    assert (version.billable_status, version.unbilled_interfaces) == (("0",), ())
    assert version.deduplicate
    assert dict(version.shared) == {
        "CreatePerson": "face-verification",
        "CreateFace": "face-verification",
    }


# Where one more call lowers the bill, and until how many calls it stays below.
FALLS = """
item               bound       before   after       until
face-detection     3_000_000   1499.5   1199.6004   3_749_749
face-detection     15_000_000  5999.6   4499.7003   19_999_666
facial-landmarks   3_000_000   5998     5398.2018   3_333_222
facial-landmarks   15_000_000  26998.2  22498.5015  17_999_799
face-comparison    3_000_000   9596.8   8997.003    3_199_933
face-comparison    15_000_000  44997    40497.3027  16_666_555
face-verification  3_000_000   9596.8   8997.003    3_199_933
face-verification  15_000_000  44997    40497.3027  16_666_555
face-search        3_000_000   9596.8   8997.003    3_199_933
face-search        15_000_000  44997    40497.3027  16_666_555
multi-face-search  3_000_000   9596.8   8997.003    3_199_933
multi-face-search  15_000_000  44997    40497.3027  16_666_555
static-liveness    3_000_000   5698.1   5098.3017   3_352_823
static-liveness    15_000_000  25498.3  19498.7013  19_615_076
"""


def test_the_bounds_at_which_the_documents_bills_fall() -> None:
    found = [
        [
            fall.item,
            f"{fall.bound:_}",
            money.text(fall.before, 0),
            money.text(fall.after, 0),
            f"{fall.until:_}",
        ]
        for item in DOCUMENT.versions[0].items
        for fall in falls(item)
    ]
    assert found == rows(FALLS)[1:]


# ---- refusals -----------------------------------------------------------------------------

BASE = """\
currency = "CNY"
timezone = "Asia/Shanghai"
[[version]]
effective_from = "2018-01"
billable_status = ["0"]
unbilled_interfaces = ["Ping"]
deduplicate = true
freeze = { factor = "1.20", base = "payable" }
shared = { Create = "search" }
[[version.item]]
code = "search"
name = "人脸检索"
interfaces = ["Create", "Search"]
free_calls = 1000
mode = "volume"
tier_basis = "gross"
tiers = [{ up_to = 10, unit_price = "0" }, { up_to = 20, unit_price = "2" }, { unit_price = "1" }]
[[version.item]]
code = "verify"
name = "人脸验证"
interfaces = ["Create", "Verify"]
tiers = [{ unit_price = "0.0032" }]
"""

REFUSALS = [
    # what stands there, what is written instead, a piece of the message
    ('currency = "CNY"', "", "no 'currency'"),
    ('"CNY"', '"cny"', "currency 'cny': not a currency with 0 or 2 minor digits"),
    ('"CNY"', '"KWD"', "currency 'KWD'"),
    ('"CNY"', "5", "currency: 5 will not do"),
    ('timezone = "Asia/Shanghai"', "", "no 'timezone'"),
    ("Asia/Shanghai", "Asia/Shangai", "timezone 'Asia/Shangai': unknown time zone"),
    ("timezone =", "time_zone =", "unknown key 'time_zone'; did you mean 'timezone'?"),
    ("timezone =", "qqq = 1\ntimezone =", "known are currency, timezone, version"),
    (BASE[BASE.index("[[version]]") :], "", "no 'version'"),
    (BASE[BASE.index("[[version]]") :], "version = []", "version: [] will not do"),
    (BASE[BASE.index("[[version]]") :], "version = [5]", "version 1: not a table"),
    ('effective_from = "2018-01"', "", "version 1: no 'effective_from'"),
    ('"2018-01"', '"2018-13"', "effective_from 2018-13: no such month"),
    ('"2018-01"', '"2018-1"', "effective_from '2018-1': not a month"),
    ('"2018-01"', "2018-01-01", "effective_from: datetime.date(2018, 1, 1) will not do"),
    ("effective_from", "effective_form", "did you mean 'effective_from'?"),
    ("billable_status", "billable_states", "did you mean 'billable_status'?"),
    ('["0"]', "[]", "billable_status: empty, so nothing would be charged"),
    ('["0"]', "[0]", "billable_status: not a list of texts"),
    ('["0"]', '["0", "0"]', "billable_status: says the same twice"),
    ('["0"]', '"0"', "billable_status: '0' will not do"),
    ('["0"]', '[""]', "billable_status: not a list of texts"),
    ('["Ping"]', '["Search"]', "'Search' is both listed by an item and unbilled"),
    ('["Ping"]', '["Ping", "Ping"]', "unbilled_interfaces: says the same twice"),
    ("deduplicate = true", "deduplicate = 1", "deduplicate: 1 will not do; write true or false"),
    ('freeze = { factor = "1.20", base = "payable" }', "", "no 'freeze'"),
    ('"1.20"', "1.20", 'factor: 1.2 will not do; write it in quotes: "1.2"'),
    ('"1.20"', '"-1.20"', "factor: '-1.20' is not a plain decimal"),
    ('"1.20"', '"120%"', "factor: '120%' is not a plain decimal"),
    ('"1.20"', '"1000.01"', "factor: beyond 1000"),
    ('base = "payable"', 'base = "amount"', "write 'payable' or 'list'"),
    ('base = "payable"', 'bass = "payable"', "did you mean 'base'?"),
    ('shared = { Create = "search" }', "", "'Create' is listed by search, verify, and shared"),
    ('Create = "search"', 'Create = "other"', "'other' does not list 'Create'; name one of"),
    ('Create = "search"', 'Create = ""', "shared, Create: '' will not do"),
    ('Create = "search"', "Create = 1979-05-27", "shared, Create: datetime.date(1979, 5, 27)"),
    ('Create = "search"', 'Create = "search", Z = "search"', "'search' does not list 'Z'; take it"),
    (
        'Create = "search"',
        'Create = "search", Search = "verify"',
        "'verify' does not list 'Search'",
    ),
    ('shared = { Create = "search" }', "shared = 5", "shared: 5 will not do"),
    (BASE[BASE.index("[[version.item]]") :], "", "version 2018-01: no 'item'"),
    ('code = "search"', "", "item 1: no 'code'"),
    ('code = "search"', 'code = ""', "code: '' will not do"),
    ('code = "verify"', 'code = "search"', "two with item code 'search'"),
    ('name = "人脸检索"', "", "item search: no 'name'"),
    ("free_calls", "free_cals", "item 1: unknown key 'free_cals'; did you mean 'free_calls'?"),
    ('interfaces = ["Create", "Search"]', "", "item search: no 'interfaces'"),
    ('["Create", "Search"]', "[]", "interfaces: lists no interface"),
    ('["Create", "Search"]', '["Search", "Search"]', "interfaces: says the same twice"),
    ("1000", "-1", "free_calls: -1 will not do; write a whole number from 0"),
    ("1000", "1.5", "free_calls: 1.5 will not do"),
    ("1000", '"1000"', "free_calls: '1000' will not do"),
    ("1000", "true", "free_calls: True will not do"),
    ("1000", "9223372036854775808", "free_calls: 9223372036854775808 will not do"),
    ("1000", "9" * 5000, "not TOML"),
    ("1000", "0x" + "f" * 5000, "free_calls: so large a number will not do"),
    ('"volume"', '"tiered"', "mode: 'tiered' will not do; write 'volume' or 'graduated'"),
    ('"volume"', '"graduated"', "tier_basis: means nothing in graduated mode"),
    ('"gross"', '"nett"', "tier_basis: 'nett' will not do; write 'gross' or 'net'"),
    ('tiers = [{ unit_price = "0.0032" }]', "", "item verify: no 'tiers'"),
    ('[{ unit_price = "0.0032" }]', "[]", "tiers: [] will not do"),
    ('[{ unit_price = "0.0032" }]', '{ unit_price = "0.0032" }', "tiers: {'unit_price': '0.0032'}"),
    ('{ unit_price = "0.0032" }', "5", "tiers 1: not a table"),
    ('{ unit_price = "0.0032" }', "{}", "tiers 1: no 'unit_price'"),
    ('"0.0032"', "0.0032", 'unit_price: 0.0032 will not do; write it in quotes: "0.0032"'),
    ('"0.0032"', "0.00005", 'unit_price: 5e-05 will not do; write it in quotes: "0.00005"'),
    ('"0.0032"', "5", 'unit_price: 5 will not do; write it in quotes: "5"'),
    ('"0.0032"', "-5", "unit_price: -5 will not do; write a non-empty text in quotes"),
    ('"0.0032"', "nan", "unit_price: nan will not do; write a non-empty text in quotes"),
    ('"0.0032"', "true", "unit_price: True will not do; write a non-empty text in quotes"),
    ('"0.0032"', '"-0.0032"', "unit_price: '-0.0032' is not a plain decimal"),
    ('"0.0032"', '"3.2e-3"', "unit_price: '3.2e-3' is not a plain decimal"),
    ('"0.0032"', '"0.000000001"', "unit_price: '0.000000001' has more than 8 decimals"),
    ('"0.0032"', '"10000"', "unit_price: 10000 or more"),
    ('"0.0032" }', '"0.0032", upto = 5 }', "unknown key 'upto'; did you mean 'up_to'?"),
    ('"0.0032" }', '"0.0032", up_to = 5 }', "the last tier is bounded; leave its up_to out"),
    ("{ up_to = 20, ", "{ ", "tiers 2: no 'up_to'"),
    ("up_to = 20", "up_to = 10", "up_to: 10 is not above the tier before"),
    ("up_to = 20", "up_to = 9", "up_to: 9 is not above the tier before"),
    ("up_to = 10,", "up_to = 0,", "up_to: 0 will not do; write a whole number from 1"),
    ("up_to = 10,", "up_to = 10.0,", "up_to: 10.0 will not do"),
    ("up_to = 10,", "up_to = true,", "up_to: True will not do"),
    ("currency", "currency currency", "not TOML"),
    ('name = "人脸检索"', 'name = "人脸检索"\nname = "x"', "not TOML: Cannot overwrite a value"),
    ("1000", "[" * 5000, "nested too deep"),
]


@pytest.mark.parametrize(("old", "new", "piece"), REFUSALS, ids=[each[2][:48] for each in REFUSALS])
def test_a_wrong_price_book_is_refused_in_one_line(old: str, new: str, piece: str) -> None:
    assert old in BASE
    with pytest.raises(BadInput) as refused:
        PriceBook.parse(BASE.replace(old, new, 1).encode(), "prices.toml")
    assert piece in str(refused.value)
    assert str(refused.value).startswith("prices.toml")
    assert len(str(refused.value).splitlines()) == 1
    assert refused.value.exit_code == 65


def test_two_versions_of_one_month_and_more_tiers_than_can_be_numbered_are_refused() -> None:
    again = BASE + BASE[BASE.index("[[version]]") :]
    with pytest.raises(BadInput, match="two versions are effective_from 2018-01; keep one"):
        PriceBook.parse(again.encode())
    many = "".join(f'{{ up_to = {n}, unit_price = "1" }}, ' for n in range(1, 1001))
    with pytest.raises(BadInput, match="more than 1000 tiers"):
        PriceBook.parse(BASE.replace("[{ unit_price", f"[{many}{{ unit_price").encode())


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    with pytest.raises(BadInput, match="not UTF-8; save it as UTF-8"):
        PriceBook.parse(BASE.encode("gb18030"))


def test_keys_left_out_have_their_defaults() -> None:
    (version,) = PriceBook.parse(
        b"""
currency = "JPY"
timezone = "UTC"
version = [{ effective_from = "2020-01", freeze = { factor = "0" }, item = [
  { code = "a", name = "A", interfaces = ["I"], tiers = [{ unit_price = "1" }] } ] }]
"""
    ).versions
    (item,) = version.items
    assert item == Item("a", "A", ("I",), (Tier(None, 10**8),), 0, "volume", "gross")
    assert (version.billable_status, version.unbilled_interfaces) == (None, ())
    assert (version.deduplicate, dict(version.shared), version.freeze.base) == (True, {}, "payable")


# ---- versions and bearing items -----------------------------------------------------------


def test_a_month_is_settled_by_the_newest_version_not_later_than_it() -> None:
    later = BASE[BASE.index("[[version]]") :]
    text = BASE + later.replace("2018-01", "2026-02") + later.replace("2018-01", "2020-06")
    book = PriceBook.parse(text.encode())
    expected = """
    2018-01 2018-01
    2020-05 2018-01
    2020-06 2020-06
    2026-01 2020-06
    2026-02 2026-02
    2031-12 2026-02
    """
    for month, version in rows(expected):
        assert str(book.version_for(Month.parse(month)).effective_from) == version
    with pytest.raises(BadInput, match="no version is in force: the first begins with 2018-01"):
        book.version_for(Month.parse("2017-12"))


@pytest.mark.parametrize(
    ("interface", "named", "bearing"),
    [
        ("DetectFace", None, "face-detection"),
        ("DetectFace", "face-detection", "face-detection"),
        ("DetectFace", "face-search", None),
        ("DetectFace", "nonsense", None),
        ("CreateFace", None, "face-verification"),
        ("CreateFace", "", "face-verification"),
        ("CreateFace", "face-search", "face-search"),
        ("CreateFace", "multi-face-search", "multi-face-search"),
        ("CreateFace", "face-comparison", None),
        ("SearchFaces", None, "face-search"),
    ],
)
def test_a_call_counts_once_toward_the_named_item_or_the_shared_one(
    interface: str, named: str | None, bearing: str | None
) -> None:
    assert DOCUMENT.versions[0].bearing(interface, named) == bearing


def test_all_bearings_are_those_of_each_call() -> None:
    version = DOCUMENT.versions[0]
    pairs, named = version.bearings()
    codes = [None, *(item.code for item in version.items)]
    interfaces = {interface for item in version.items for interface in item.interfaces}
    every = {(i, code): version.bearing(i, code) for i in interfaces for code in codes}
    assert named == {call: item for call, item in every.items() if item}
    assert pairs == sorted({(i, item) for (i, _), item in named.items()})


def test_an_interface_that_no_item_lists_bears_nothing() -> None:
    with pytest.raises(KeyError):
        DOCUMENT.versions[0].bearing("Ping")
    assert DOCUMENT.versions[0].listing("Ping") == ()
    assert DOCUMENT.versions[0].item("face-search").name == "人脸检索"


def test_the_digest_is_of_the_rules_and_not_of_how_they_are_written() -> None:
    def digest(text: str) -> str:
        return PriceBook.parse(text.encode()).versions[0].digest

    assert digest(BASE) == digest(BASE.replace("[[version]]", "# a comment\n[[version]]"))
    assert digest(BASE) == digest(BASE.replace("= 1000", "   =   1_000"))
    assert digest(BASE) == digest(BASE.replace('"CNY"', '"EUR"'))
    assert digest(BASE) != digest(BASE.replace('"0.0032"', '"0.0031"'))
    assert digest(BASE) != digest(BASE.replace('"1.20"', '"1.10"'))


# ---- whatever is written ------------------------------------------------------------------


def toml(value: Any) -> str:
    """Write a value as inline TOML, near enough."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return json.dumps(value, ensure_ascii=False)
    return str(value)


def plain() -> dict[str, Any]:
    tiers = [{"up_to": 10, "unit_price": "0"}, {"unit_price": "1"}]
    item = {"code": "a", "name": "A", "interfaces": ["I", "J"], "free_calls": 5, "tiers": tiers}
    version = {
        "effective_from": "2020-01",
        "billable_status": ["0"],
        "unbilled_interfaces": ["P"],
        "deduplicate": False,
        "freeze": {"factor": "1.2", "base": "list"},
        "shared": {"I": "a"},
        "item": [item, item | {"code": "b", "interfaces": ["I"]}],
    }
    return {"currency": "CNY", "timezone": "UTC", "version": [version]}


ODDITIES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.dates(date(1970, 1, 1))
    | st.sampled_from(["0", "1", "a", "b", "I", "P", "2020-01", "UTC", "1e5", "graduated", "net"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["up_to", "unit_price", "I", "J"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def disturb(data: st.DataObject, value: Any) -> Any:
    """Replace something, at any depth, by something else; None leaves it out."""
    if not isinstance(value, dict | list) or not value or data.draw(st.integers(0, 4)) == 0:
        return data.draw(ODDITIES)
    if isinstance(value, list):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], disturb(data, value[at]), *value[at + 1 :]]
    key = data.draw(st.sampled_from(sorted(value)))
    new = disturb(data, value[key])
    rest = {name: each for name, each in value.items() if name != key}
    return rest if new is None else rest | {key: new}


def parsed_or_refused(raw: bytes) -> None:
    try:
        book = PriceBook.parse(raw)
    except SettlementError as refused:
        said = (refused.exit_code, len(str(refused).splitlines()))
    else:
        said = (65, len(book.versions[:1]))
    assert said == (65, 1)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_disturbed_price_book_is_parsed_or_refused_never_a_crash(data: st.DataObject) -> None:
    book = plain()
    for _ in range(data.draw(st.integers(1, 3))):
        book = disturb(data, book)
        if not isinstance(book, dict):
            return
    parsed_or_refused("\n".join(f"{k} = {toml(v)}" for k, v in book.items()).encode())


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_parsed_or_refused_never_a_crash(raw: bytes) -> None:
    parsed_or_refused(raw)


# ---- falls --------------------------------------------------------------------------------


@st.composite
def items(draw: st.DrawFn) -> Item:
    bounds = sorted(draw(st.sets(st.integers(1, 60), max_size=4)))
    prices = [draw(st.integers(0, 12)) for _ in range(len(bounds) + 1)]
    tiers = tuple(map(Tier, [*bounds, None], prices))
    free = draw(st.sampled_from([0, 0, 1, 5, 30, 70]))
    mode = draw(st.sampled_from(get_args(Mode)))
    if mode == "graduated":
        return Item("x", "X", ("X",), tiers, free, mode)
    return Item("x", "X", ("X",), tiers, free, mode, draw(st.sampled_from(get_args(TierBasis))))


def bill(item: Item, calls: int) -> int:
    """Price call by call: what each one costs, with the first ones free."""
    free = min(item.free_calls, calls)

    def cost(n: int) -> int:
        return next(t.unit_price for t in item.tiers if t.up_to is None or n <= t.up_to)

    if item.mode == "graduated":
        return sum(cost(n) for n in range(1, calls + 1)) - sum(cost(n) for n in range(1, free + 1))
    basis = calls if item.tier_basis == "gross" else calls - free
    return sum([cost(basis)] * (calls - free))


@settings(max_examples=120, deadline=None)
@given(items())
@example(Item("x", "X", ("X",), (Tier(10, 4), Tier(20, 2), Tier(None, 1))))  # 20 × 2 = 10 × 4
def test_falls_are_those_that_trying_every_count_finds(item: Item) -> None:
    most = 60 + 70 + 60 * 12 + 2  # by then a price of 1 has brought any bill up again
    bills = [bill(item, calls) for calls in range(140)]
    last = item.tiers[-1].unit_price
    if item.mode == "volume":
        bills += [last * (calls - item.free_calls) for calls in range(140, most)]
    assert bills == [amount_due(item, calls) for calls in range(len(bills))]
    expected = []
    for calls, (before, after) in enumerate(pairwise(bills)):
        if after < before:
            back = next((n for n in range(calls + 1, most) if bills[n] >= before), 2**63)
            expected.append((calls, before, after, back - 1))
    assert [(f.bound, f.before, f.after, f.until) for f in falls(item)] == expected
