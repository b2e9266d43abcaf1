"""The columns of a call log: what they are called here, and what a log may call them.

Everything here speaks of ``request_id``, ``account_id`` and so on (README, Call log). Where a
log has other names for them, a mapping says which, and only the code that opens files needs it.
"""

import difflib
from collections.abc import Iterable, Mapping
from shlex import quote

from settlement.errors import BadConfig

COLUMNS = ("request_id", "account_id", "interface", "timestamp", "status_code", "item")
_FILE = "[logs.columns] of settlement.toml"
_LISTED, _LONGEST_NAME = 8, 40
"""How many columns of a file a refusal lists, and how much of a name."""


def mapping(pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Return the log's own name of every column, by what it is called here.

    Args:
        pairs: a column's name here and the log's own; those not named are called as here.

    Raises:
        BadConfig: there is no such column, it is named twice, or two have one name.
    """
    given: dict[str, str] = {}
    for name, own in pairs:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, 1, 0.5)
            cure = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COLUMNS)}"
            raise BadConfig(f"no column {name!r}", where=f"column {name}={own}", cure=cure)
        if given.setdefault(name, own) != own:
            said = f"column {name}={own}"
            raise BadConfig(f"it is {given[name]!r} too", where=said, cure="give one name")
    names = {name: given.get(name, name) for name in COLUMNS}
    by_own: dict[str, str] = {}
    for name, own in names.items():
        if own in by_own:
            raise BadConfig(
                f"{by_own[own]} and {name} are both read from {own!r}",
                where=f"column {name}={own}",
                cure="give each the log's own name for it",
            )
        by_own[own] = name
    return names


def cure_of_missing(name: str, own: str, others: Iterable[str]) -> str:
    """Say what to do about a column that a file lacks: it may have another name there.

    Args:
        name: what the column is called here.
        own: what it should be called in the file.
        others: the columns of the file that mean nothing here.
    """
    known = {_plain(other): other for other in others}
    near = difflib.get_close_matches(_plain(own), known, 1, 0.6)
    if near:
        called = f"did you mean {known[near[0]]!r}? Say so by"
        return f"{called} --column {name}={quote(known[near[0]])}, or in {_FILE}"
    cure = "write it into the file, or move the file out of the call log"
    if not known:
        return cure
    listed = ", ".join(repr(other)[:_LONGEST_NAME] for other in [*known.values()][:_LISTED])
    more = ", …" if len(known) > _LISTED else ""
    return (
        f"{cure}; if it is one of {listed}{more}, say so by --column {name}=COLUMN, or in {_FILE}"
    )


def _plain(name: str) -> str:
    """Return the letters and digits of a name, in lower case."""
    return "".join(filter(str.isalnum, name.lower()))


def renamed(names: Mapping[str, str]) -> dict[str, str]:
    """Return only the columns that a log calls otherwise."""
    return {name: own for name, own in names.items() if name != own}
