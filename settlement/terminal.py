"""What a terminal can show: how wide text is, which characters it knows, how tables fit.

Widths count what is seen: a Chinese character takes two columns, a combining mark none. Where
tables are wider than the terminal, long texts wrap within their column, and if that is not
enough rows fold into several lines, each aligned with those of the other rows. Nothing is cut
off. Into a file or a pipe a row is always one line.
"""

import codecs
import shutil
import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence

_GAP = "  "
_FOLD = "    "
_LEAST_TEXT = 16
"""A column of text is not made narrower than this."""
_LEAST_ROOM = 20
_PLAIN = {
    "→": "->",
    "×": "x",
    "−": "-",
    "≤": "<=",
    "≥": ">=",
    "·": "-",
    "…": "...",
    "–": "-",
    "Σ": "sum",
    "█": "#",
    "▏": "|",
    "│": "|",
    "─": "-",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
}
"""What stands for a sign of ours on a terminal that does not know it."""
ERRORS = "settlement.plain"
"""The name of the way in which characters are written that an encoding lacks."""


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write the first character that an encoding lacks in those that it has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign = _PLAIN.get(error.object[error.start])
    if sign is not None:
        return sign, error.start + 1
    one = UnicodeEncodeError(
        error.encoding, error.object, error.start, error.start + 1, error.reason
    )
    return codecs.backslashreplace_errors(one)


codecs.register_error(ERRORS, _plain)


def knows_unicode() -> bool:
    """Tell whether standard output can show every character."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return codecs.lookup(encoding).name.startswith("utf")


def seen(text: str) -> str:
    """Return a text as standard output will show it."""
    if text.isascii() or knows_unicode():
        return text
    encoding = sys.stdout.encoding
    return text.encode(encoding, ERRORS).decode(encoding)


def room() -> int | None:
    """Return how many columns the terminal has; None where standard output is none."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return max(shutil.get_terminal_size().columns, _LEAST_ROOM)


def width(text: str) -> int:
    """Return how many terminal columns a text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    is_medial = "\u1160" <= character <= "\u11ff"  # of a Hangul syllable
    if is_medial or unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 1 + (unicodedata.east_asian_width(character) in "WF")


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Fill a text up to a width, at its end, or before it when it belongs to the right."""
    blank = " " * max(columns - width(text), 0)
    return blank + text if right else text + blank


def wrapped(text: str, columns: int) -> list[str]:
    """Part a text into lines of at most so many columns, between words where that is possible."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and width(lines[-1]) + 1 + width(word) <= columns:
            lines[-1] += " " + word
            continue
        pieces = list(_pieces(word, columns))
        lines[-1:] = [*([lines[-1]] if lines[-1] else []), *pieces]
    return lines


def _pieces(word: str, columns: int) -> Iterator[str]:
    """Part a word that is too long; marks stay with the character that they belong to."""
    piece = ""
    for character in word:
        if width(piece) + _columns(character) > columns and piece:
            yield piece
            piece = ""
        piece += character
    yield piece


def laid(rows: Sequence[Sequence[str]], right: Iterable[int] = (), indent: str = "") -> list[str]:
    """Lay rows of cells out in columns, those in ``right`` to the right.

    Returns each row as a text, of several lines where it does not fit the terminal.
    """
    if not rows:
        return []
    cells = [[seen(cell) for cell in row] for row in rows]
    to_right = set(right)
    widths = [max(width(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [list(range(len(widths)))]
    columns = room()
    if columns is not None and _total(widths) > columns - len(indent):
        widths, lines = _fitted(widths, to_right, columns - len(indent))
    return [_row(row, widths, lines, to_right, indent) for row in cells]


def _total(widths: Collection[int]) -> int:
    return sum(widths) + len(_GAP) * max(len(widths) - 1, 0)


def _fitted(
    widths: Sequence[int], to_right: Collection[int], columns: int
) -> tuple[list[int], list[list[int]]]:
    """Return narrower columns, and which of them stand on each line of a row."""
    least = [
        each if column in to_right else min(each, _LEAST_TEXT) for column, each in enumerate(widths)
    ]
    lines: list[list[int]] = [[]]
    for column, each in enumerate(least):
        has = columns - (len(_FOLD) if len(lines) > 1 else 0)
        if lines[-1] and _total([*(least[c] for c in lines[-1]), each]) > has:
            lines.append([])
        lines[-1].append(column)
    fitted = list(least)
    for number, line in enumerate(lines):
        left = columns - (len(_FOLD) if number else 0) - _total([least[c] for c in line])
        for column in line:
            more = min(max(left, 0), widths[column] - fitted[column])
            fitted[column] += more
            left -= more
    return fitted, lines


def _row(
    row: Sequence[str],
    widths: Sequence[int],
    lines: Sequence[Sequence[int]],
    to_right: Collection[int],
    indent: str,
) -> str:
    """Write one row on its lines."""
    written = []
    for number, line in enumerate(lines):
        parts = [
            [row[c]] if c in to_right or width(row[c]) <= widths[c] else wrapped(row[c], widths[c])
            for c in line
        ]
        for at in range(max(map(len, parts))):
            cells = (
                pad(part[at] if at < len(part) else "", widths[c], right=c in to_right)
                for c, part in zip(line, parts, strict=True)
            )
            written.append((indent + (_FOLD if number else "") + _GAP.join(cells)).rstrip())
    return "\n".join(written)
