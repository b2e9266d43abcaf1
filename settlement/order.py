"""An order: what to settle, from which log, into which book, and under which conditions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from settlement.columns import mapping, renamed
from settlement.contracts import Contracts, Terms
from settlement.errors import WrongUsage
from settlement.gates import Limits
from settlement.month import Month, instant_of, zone_named
from settlement.prices import PriceBook


@dataclass(frozen=True)
class Order:
    """What to settle, from which log, into which book, and under which conditions.

    ``max_rejects`` is the largest share of the month's rows that may be rejected;
    ``naive_timestamps`` says in which zone timestamps without one were written, and
    ``columns`` what the log calls its columns (see `columns.mapping`); ``now`` is
    the instant taken for the present, ``now_set`` whether it was given instead of the clock.
    ``revise`` states a settled month anew, for a ``reason``. ``require_days`` refuses a month
    with a day without rows between days that have some.

    The limits (see `gates.Limits`) stop a run before it publishes what nobody expects;
    ``approve`` is the digest of the very figures that are to be published all the same, and
    ``given`` the options with which a person gives this order again.

    ``engine`` says what counts: ``local``, or ``spark`` on the cluster ``master`` with the
    settings ``conf`` (see `cluster.Cluster`). The outcome is the same.
    """

    month: Month
    logs: str
    book: Path
    prices: PriceBook
    now: datetime
    now_set: bool = False
    naive_timestamps: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    max_rejects: Fraction = Fraction(1, 10_000)
    allow_empty: bool = False
    allow_gap: bool = False
    threads: int | None = None
    revise: bool = False
    reason: str | None = None
    require_days: bool = False
    limit_total: Fraction | None = None
    limit_account: tuple[Fraction, int] | None = None
    limit_items: bool = False
    limit_rejects: Fraction | None = None
    limit_adjustments: int | None = None
    approve: str | None = None
    given: str = ""
    contracts: Contracts | None = None
    engine: str = "local"
    master: str | None = None
    conf: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse settings of a cluster that would silently be left unused."""
        if self.engine == "local" and (self.master or self.conf):
            raise WrongUsage("--master and --conf go with --engine spark")

    @property
    def limits(self) -> Limits:
        """What is published without a person who has seen it."""
        return Limits(
            self.limit_total,
            self.limit_account,
            self.limit_items,
            self.limit_rejects,
            self.limit_adjustments,
        )

    @property
    def naive_zone(self) -> ZoneInfo | None:
        """The zone of timestamps that have none."""
        return zone_named(self.naive_timestamps) if self.naive_timestamps else None

    @cached_property
    def names(self) -> Mapping[str, str]:
        """The log's own name of every column; raises `BadConfig` where two have one."""
        return mapping(self.columns)

    @property
    def options(self) -> dict[str, Any]:
        """What the manifest records of the conditions that can change an outcome."""
        own = renamed(self.names)
        return {"naive_timestamps": self.naive_timestamps} | ({"columns": own} if own else {})

    @cached_property
    def terms(self) -> Terms | None:
        """What the contracts say in the month; raises `BadInput` where their file is wrong."""
        return self.contracts.in_force(self.month) if self.contracts else None

    @property
    def recorded(self) -> dict[str, Any]:
        """What the manifest records under ``options``.

        Beside the options, where they apply: the instant that stood in for the clock, why a
        month is revised, the digests of the contracts file and of its terms in the month.
        """
        now = {"now": instant_of(self.now)} if self.now_set else {}
        reason = {"reason": self.reason} if self.revise else {}
        return self.options | now | reason | self._contracts_recorded

    @property
    def _contracts_recorded(self) -> dict[str, str | None]:
        if not self.contracts or not self.terms:
            return {}
        return {"contracts_sha256": self.contracts.digest, "terms_sha256": self.terms.digest}

    def again(self, command: str, *more: str) -> str:
        """Spell a command that takes this order again, with more options behind it."""
        return " ".join(filter(None, ["settle", command, str(self.month), self.given, *more]))
