"""What a call says: its columns, computed from its number for all rows at once."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from settlement.sample.calls import (
    ACCOUNT,
    BUCKETS,
    CALL,
    CONFLICT,
    FATE,
    HIGH,
    LOW,
    MALFORMED,
    REASONS,
    REDELIVERY,
    RETRY,
    STRAY,
    TASTE,
    Bits,
    Bools,
    Codes,
    Ints,
    Plan,
    Rows,
    failed,
    lag,
)

FIRST_ACCOUNT = 100_000_000  # account number 42 is written 0100000042

# Eight equally likely ways to call an item: the interface, and the item the log names (or None).
_USES: dict[str, tuple[tuple[str, str | None], ...]] = {
    "face-detection": (("DetectFace", None),) * 8,
    "facial-landmarks": (("AnalyzeFace", None),) * 8,
    "face-comparison": (("CompareFace", None),) * 8,
    "face-verification": (
        *(("VerifyFace", None),) * 5,
        ("CreatePerson", None),
        ("CreateFace", None),
        ("CreateFace", "face-verification"),
    ),
    "face-search": (
        *(("SearchFaces", None),) * 5,
        ("CreatePerson", "face-search"),
        *(("CreateFace", "face-search"),) * 2,
    ),
    "multi-face-search": (
        *(("SearchMultiFaces", None),) * 6,
        ("CreatePerson", "multi-face-search"),
        ("CreateFace", "multi-face-search"),
    ),
    "static-liveness": (("DetectLiveFace", None),) * 8,
}
_POPULARITY = (4, 1, 4, 3, 2, 1, 1)  # of the items above, in sixteenths of the calls
_UNKNOWN_INTERFACE = "SearchPersons"
_INTERFACES = [*dict.fromkeys(use for uses in _USES.values() for use, _ in uses)]
_INTERFACES.append(_UNKNOWN_INTERFACE)
_ITEMS = list(_USES)
_NO_ITEM = -1
_NO_ACCOUNT = -1
_WAYS = np.array(  # [item, way] → codes of interface and named item
    [
        [
            [_INTERFACES.index(use), _ITEMS.index(named) if named else _NO_ITEM]
            for use, named in uses
        ]
        for uses in _USES.values()
    ],
    np.int8,
)
_FAILURE_CODES = np.array([400, 429, 500, 504], np.int32)

_ID_GROUPS = 8  # of four hexadecimal digits
_HEX = np.frombuffer("".join(f"{value:04x}" for value in range(65_536)).encode(), np.uint32)
_UUID = np.dtype(
    {
        "names": [*(f"group{i}" for i in range(_ID_GROUPS)), *(f"hyphen{i}" for i in range(4))],
        "formats": ["u4"] * _ID_GROUPS + ["u1"] * 4,
        "offsets": [0, 4, 9, 14, 19, 24, 28, 32, 8, 13, 18, 23],
        "itemsize": 36,
    }
)


def table_of(plan: Plan, rows: Rows) -> pa.Table:
    """Compute the columns of rows."""
    fate = plan.draw(FATE, rows.number)
    account, item = _who(plan, rows, fate)
    interface, named = _use(rows, fate, item)
    later = (rows.kind == RETRY) | (rows.kind == CONFLICT)
    at = np.where(later, np.minimum(rows.born + lag(fate), plan.starts[-1] - 1), rows.born)
    timestamp = pa.array(at, pa.timestamp("us", "UTC"), mask=_is(rows, "missing_timestamp"))
    return pa.table(
        {
            "request_id": _ids(plan, rows),
            "account_id": _accounts(account),
            "interface": pa.DictionaryArray.from_arrays(pa.array(interface), _INTERFACES),
            "timestamp": timestamp,
            "status_code": pa.array(_status(rows, fate), mask=_is(rows, "missing_status")),
            "item": pa.DictionaryArray.from_arrays(pa.array(named, mask=named == _NO_ITEM), _ITEMS),
        }
    )


def _is(rows: Rows, reason: str) -> Bools:
    """Tell which rows are malformed for a reason."""
    return np.asarray(rows.kind == MALFORMED + REASONS.index(reason))


def _who(plan: Plan, rows: Rows, fate: Bits) -> tuple[Ints, Ints]:
    """Return the numbers of the accounts that call, and the codes of the items they call.

    The share of account n is the logarithm of (n + 1) / n: nearly 1/n, and a closed form. Three
    calls in four are of the account's favourite item.
    """
    even = (plan.draw(ACCOUNT, rows.number) >> np.uint64(11)) * 2.0**-53
    account = np.exp(even * np.log(plan.accounts + 1)).astype(np.int64)
    account = np.minimum(account, plan.accounts)
    loyal = fate >> np.uint64(32) & np.uint64(3) != 0
    slot = np.where(loyal, plan.draw(TASTE, account), fate >> np.uint64(24)) & np.uint64(15)
    item = np.repeat(np.arange(len(_ITEMS)), _POPULARITY)[slot]
    if plan.quotas:
        quota = plan.quota(rows.number)
        for code, wanted in enumerate(plan.quotas):
            account[quota == code] = wanted.account
            item[quota == code] = _ITEMS.index(wanted.item)
    account = np.where(rows.kind == CONFLICT, account % plan.accounts + 1, account)
    return np.where(_is(rows, "missing_account_id"), _NO_ACCOUNT, account), item


def _use(rows: Rows, fate: Bits, item: Ints) -> tuple[Codes, Codes]:
    """Return the codes of the interfaces that were called and of the items that the log names."""
    way = fate >> np.uint64(40) & np.uint64(7)
    interface, named = _WAYS[item, way].T.copy()
    interface[_is(rows, "unknown_interface")] = _INTERFACES.index(_UNKNOWN_INTERFACE)
    wrong = _is(rows, "wrong_item")
    interface[wrong] = _INTERFACES.index("CreateFace")
    named[wrong] = _ITEMS.index("static-liveness")
    return interface, named


def _accounts(numbers: Ints) -> pa.DictionaryArray:
    """Write account numbers as ten digits, each number once; no account is empty text."""
    coded = pa.array(numbers).dictionary_encode()
    digits = pc.add(coded.dictionary, FIRST_ACCOUNT).cast(pa.string())
    known = pc.not_equal(coded.dictionary, _NO_ACCOUNT)
    text = pc.if_else(known, pc.utf8_lpad(digits, 10, "0"), "")
    return pa.DictionaryArray.from_arrays(coded.indices, text)


def _ids(plan: Plan, rows: Rows) -> pa.Array:
    """Write the request ids as UUIDs of version 4, or 7 (time first) where the log is compact.

    The text is laid down in groups of four digits for all rows at once: a loop would take minutes.
    """
    high, low = plan.draw(HIGH, rows.number), plan.draw(LOW, rows.number)
    version = np.uint64(0x4000)
    if plan.compact:
        version = np.uint64(0x7000)
        high &= np.uint64(0xFFFF)
        high |= (rows.born // 1000).astype(np.uint64) << np.uint64(16)
    high = high & ~np.uint64(0xF000) | version
    low = low & ~np.uint64(3 << 62) | np.uint64(1 << 63)
    text = np.empty(len(high), _UUID)
    for group in range(_ID_GROUPS):
        lane, shift = (high, low)[group // 4], np.uint64(48 - group % 4 * 16)
        text[f"group{group}"] = _HEX[lane >> shift & np.uint64(0xFFFF)]
    for hyphen in range(4):
        text[f"hyphen{hyphen}"] = ord("-")
    ends = np.arange(len(text) + 1, dtype=np.int32) * np.int32(_UUID.itemsize)
    ids = pa.StringArray.from_buffers(len(text), pa.py_buffer(ends), pa.py_buffer(text))
    missing = _is(rows, "missing_request_id")
    return pc.if_else(missing, pa.scalar(None, pa.string()), ids) if missing.any() else ids


def _status(rows: Rows, fate: Bits) -> npt.NDArray[np.int32]:
    """Return the status codes: failures are calls and re-deliveries of failed calls."""
    fails = failed(fate) & (rows.kind <= REDELIVERY)
    return np.where(fails, _FAILURE_CODES[fate >> np.uint64(16) & np.uint64(3)], np.int32(0))


def buckets_of(plan: Plan, rows: Rows) -> Counter[str]:
    """Count the rows by the bucket they must land in."""
    fails = _status(rows, plan.draw(FATE, rows.number)) != 0
    kinds = np.bincount(rows.kind[~fails], minlength=MALFORMED + len(REASONS)).tolist()
    billed = kinds[CALL] + kinds[RETRY]
    others = kinds[REDELIVERY], kinds[CONFLICT], kinds[STRAY], int(fails.sum())
    return Counter(dict(zip(BUCKETS, (billed, *others, *kinds[MALFORMED:]), strict=True)))
