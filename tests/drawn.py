"""Tables drawn in tests as text, one row a line, read as the program's own frames."""

import pandas as pd

from settlement import money
from settlement.frames import frame
from settlement.tables import Kind, Table


def rows(drawing: str) -> list[list[str]]:
    """Split a drawing into cells; empty lines and lines of dashes are left out."""
    lines = (line.replace("|", " ").split() for line in drawing.splitlines())
    return [cells for cells in lines if cells and set(cells[0]) != {"-"}]


def drawn(table: Table, drawing: str) -> pd.DataFrame:
    """Read a drawing whose first line names the columns; ``·`` is null, money is decimal."""
    header, *body = rows(drawing)
    columns = {column.name: column for column in table.columns}
    cells = {name: [row[at] for row in body] for at, name in enumerate(header)}
    return frame(
        table,
        {name: [value(columns[name].kind, cell) for cell in cells[name]] for name in header},
    )


def value(kind: Kind, cell: str) -> str | int | None:
    """Read one cell."""
    if cell == "·":
        return -1 if kind.is_money else None
    if kind is Kind.TEXT:
        return cell
    if not kind.is_money:
        return int(cell.replace("_", ""))
    sign = -1 if cell.startswith("-") else 1
    return sign * money.units(cell.lstrip("-").replace("_", ""))
