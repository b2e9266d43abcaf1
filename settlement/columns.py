"""The columns of a call log: what they are called here, and what a log may call them.

Everything here speaks of ``request_id``, ``account_id`` and so on (README, Input). Where a log
has other names for them, a mapping says which, and only the code that opens files needs it.
"""

import difflib
from collections.abc import Iterable, Mapping

from settlement.errors import BadConfig

COLUMNS = ("request_id", "account_id", "interface", "timestamp", "status_code", "item")


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


def renamed(names: Mapping[str, str]) -> dict[str, str]:
    """Return only the columns that a log calls otherwise."""
    return {name: own for name, own in names.items() if name != own}
