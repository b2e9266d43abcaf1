"""What may be set: the one list from which options, variables and the file's keys are made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from settlement.columns import COLUMNS
from settlement.operations import values

_F = TypeVar("_F", bound=Callable[..., Any])

TEXT, PATH, WHOLE, NUMBER, FLAG, TEXTS, TABLE, WORDS = (
    "a text in quotes",
    "a path in quotes",
    "a whole number",
    "a number, or one in quotes",
    "true or false",
    "a list of texts",
    "a table of texts",
    "a list of words, or a text that a shell would part into them",
)
"""What the value of a key may be."""


@dataclass(frozen=True)
class Setting:
    """Something that may be set: a key of the file, a variable, an option.

    Args:
        key: the key with its section, ``counting.threads``.
        kind: what its value is in the file (`TEXT`, …).
        help: what it means, as ``--help`` says it.
        default: its value where nothing sets it.
        otherwise: what holds then, in words, where there is no such value.
        reader: what reads the text of a value; raises `click.BadParameter`.
        metavar: what stands for a value in ``--help``.
        option: the option's name, where it is not the last part of the key.
        flag: how the option is typed, where it is not its name with hyphens.
        alias: how else it may be typed.
        secret: whether its value is shown to nobody.
    """

    key: str
    kind: str
    help: str
    default: str | None = None
    otherwise: str = ""
    reader: Any = str
    metavar: str | None = None
    option: str = ""
    flag: str = ""
    alias: str = ""
    secret: bool = False

    @property
    def name(self) -> str:
        """The option's name as Python has it."""
        return self.option or self.key.rpartition(".")[2]

    @property
    def variable(self) -> str:
        """The variable of the environment."""
        return f"SETTLE_{self.name.upper()}"

    @property
    def typed(self) -> str:
        """The option as it is typed."""
        return self.flag or "--" + self.name.replace("_", "-")

    @property
    def refused(self) -> str:
        """The option as it is typed to say no."""
        return f"--no-{self.typed[2:]}"


SETTINGS = (
    Setting(
        "book", PATH, "the folder of all settlements", "data/book", reader=values.path_of,
        metavar="PATH",
    ),
    Setting(
        "prices", PATH, "the price book", "data/price_book.toml", reader=values.path_of,
        metavar="PATH",
    ),
    Setting(
        "contracts", PATH, "the contract prices", reader=values.path_of, metavar="PATH",
        otherwise="contracts.csv or .parquet beside the price book, if any",
    ),
    Setting(
        "logs.path", PATH, "the call log: a folder, file, glob or URL", "data/logs", option="logs",
        reader=values.logs_of, metavar="PATH|URL",
    ),
    Setting(
        "logs.naive_timestamps", TEXT, "the zone of timestamps that have none",
        reader=values.zone_of, metavar="ZONE", otherwise="such a log is refused",
    ),
    Setting(
        "logs.columns", TABLE, f"the log's own name of a column ({', '.join(COLUMNS)}); may be "
        "given again", reader=values.column_of, metavar="NAME=COLUMN", flag="--column",
        otherwise="the same names",
    ),
    Setting(
        "counting.max_rejects", NUMBER, "the largest share of rows that may be rejected", "0.0001",
        reader=values.share_of, metavar="SHARE",
    ),
    Setting("counting.allow_empty", FLAG, "settle a month in which nobody called"),
    Setting(
        "counting.require_days", FLAG, "refuse a day without a row between days that have some",
    ),
    Setting(
        "counting.threads", WHOLE, "threads that read the log", otherwise="one per core",
        reader=click.IntRange(1, 1024),
    ),
    Setting(
        "counting.engine", TEXT, "what counts: this machine, or a Spark cluster", "local",
        reader=click.Choice(["local", "spark"]),
    ),
    Setting(
        "counting.master", TEXT, "the Spark cluster", metavar="URL", otherwise="spark-submit's",
    ),
    Setting(
        "counting.conf", TEXTS, "a setting of Spark's; may be given again", metavar="NAME=VALUE",
        otherwise="none",
    ),
    Setting(
        "limits.total", NUMBER, "stop where the total differs more from the month before",
        reader=values.decimal_of, metavar="PERCENT", option="limit_total", otherwise="off",
    ),
    Setting(
        "limits.account", TEXT,
        "stop where an account owes more than FACTOR × its last bill and than AMOUNT",
        reader=values.factor_and_amount_of, metavar="FACTOR:AMOUNT", option="limit_account",
        otherwise="off",
    ),
    Setting(
        "limits.items", FLAG, "stop where an item that had revenue has none", option="limit_items",
    ),
    Setting(
        "limits.rejects", NUMBER, "stop where a larger share of rows is rejected",
        reader=values.share_of, metavar="SHARE", option="limit_rejects", otherwise="off",
    ),
    Setting(
        "messages.log_format", TEXT, "messages as text, or one JSON object a line", "text",
        reader=click.Choice(["text", "json"]),
    ),
    Setting(
        "messages.quiet", FLAG,
        "no messages but warnings and errors; results are printed all the same",
    ),
    Setting("messages.verbose", FLAG, "say what each stage took"),
    Setting(
        "schedule.first_month", TEXT, "where an empty book begins", reader=values.month_of,
        metavar="YYYY-MM", otherwise="the month that last ended",
    ),
    Setting(
        "schedule.auto_revise_below", NUMBER,
        "revise a month that has late calls where the adjustments add up to less",
        reader=values.amount_of, metavar="AMOUNT", otherwise="off",
    ),
    Setting(
        "schedule.at", TEXT,
        "when the service looks, in the billing zone: a time of day, or five cron fields",
        "02:00", reader=values.schedule_of, metavar="HH:MM|FIELDS", alias="--cron",
    ),
    Setting(
        "schedule.retry_first", NUMBER,
        "the wait before what failed (exit codes 66, 74, 75) is tried again", "1m",
        reader=values.seconds_of, metavar="TIME",
    ),
    Setting(
        "schedule.retry_factor", NUMBER, "how many times longer each further wait is", "2",
        reader=values.multiple_of, metavar="NUMBER",
    ),
    Setting(
        "schedule.retry_longest", NUMBER, "the longest wait", "1h", reader=values.seconds_of,
        metavar="TIME",
    ),
    Setting(
        "schedule.retry_total", NUMBER, "how long to try again before the next tick; 0: never",
        "12h", reader=values.seconds_of, metavar="TIME",
    ),
    Setting(
        "schedule.stop_within", NUMBER,
        "how long a run under way may take to finish when told to stop", "20s",
        reader=values.seconds_of, metavar="TIME",
    ),
    Setting(
        "outputs.metrics", PATH, "where to put metrics of run and book, for Prometheus",
        reader=values.path_of, metavar="FILE", otherwise="nowhere",
    ),
    Setting(
        "notify.on_success", WORDS, "what to run, its report as input, when a month is published",
        reader=values.words_of, metavar="COMMAND", otherwise="none",
    ),
    Setting(
        "notify.on_failure", WORDS, "what to run when a month cannot be settled",
        reader=values.words_of, metavar="COMMAND", otherwise="none",
    ),
    Setting(
        "notify.on_review", WORDS, "what to run when a person must look at a month first",
        reader=values.words_of, metavar="COMMAND", otherwise="none",
    ),
    Setting(
        "notify.ping", TEXT, "what to ask for when all is done; URL/start before it, and "
        "URL/fail where it is not done", metavar="URL", otherwise="nothing", secret=True,
    ),
    Setting(
        "notify.seconds", WHOLE, "how long such a command or ping may take", "30",
        reader=click.IntRange(1, 3600), option="notify_seconds",
    ),
)  # fmt: skip
BY_KEY = {setting.key: setting for setting in SETTINGS}


def option(key: str, **more: Any) -> Callable[[_F], _F]:
    """Return the option of a setting, as a decorator of commands; ``more`` is for click."""
    return click.option(*_declared(BY_KEY[key]), **_described(BY_KEY[key]), **more)


def parameter(key: str, **more: Any) -> click.Option:
    """Return the option of a setting, to be added to a command."""
    return click.Option(_declared(BY_KEY[key]), **_described(BY_KEY[key]), **more)


def _declared(setting: Setting) -> list[str]:
    typed = f"{setting.typed}/{setting.refused}" if setting.kind == FLAG else setting.typed
    return [typed, *([setting.alias] if setting.alias else []), setting.name]


def _described(setting: Setting) -> dict[str, Any]:
    about: dict[str, Any] = {"envvar": setting.variable, "help": setting.help}
    if setting.kind == FLAG:
        return about | {"is_flag": True, "default": False}
    if setting.otherwise:
        about["help"] += f"  [default: {setting.otherwise}]"
    if setting.default is not None:
        about |= {"default": setting.default, "show_default": True}
    if setting.metavar:
        about["metavar"] = setting.metavar
    if setting.kind in {TEXTS, TABLE}:
        about["multiple"] = True
    return about | {"type": setting.reader}
