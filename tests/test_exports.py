"""Finance CSV, byte by byte, and as spreadsheets and readers of CSV see it."""

import csv
import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settlement import frames
from settlement.errors import CannotWrite
from settlement.exports import export, write_csv
from settlement.month import Month
from settlement.tables import ADJUSTMENTS, ENTRIES, INVOICES, LINES, Table, WrongTable

FEBRUARY = Month.parse("2026-02")
STAMP: dict[str, Any] = {"month": "2026-02", "revision": 1, "currency": "CNY", "digest": "d1e5"}
NAMES = ["control.json", "entries.csv", "invoices.csv", "lines.csv"]
DOCUMENT_LINE = ("0017", "face-comparison", 10_001, 2, "0.0032", "32.0032", 1000, "3.2", "28.8032")


def published(table: Table, *rows: tuple[Any, ...]) -> pa.Table:
    """Rows as drawn, money as text, sorted by their key, as the book publishes them."""
    ordered = sorted(rows, key=lambda row: [key_part(part) for part in row[: table.key_length]])
    columns: dict[str, list[Any]] = {name: [] for name in table.names}
    for row in ordered:
        for column, cell in zip(table.columns, row, strict=True):
            columns[column.name].append(inside(cell) if column.kind.is_money else cell)
    return frames.to_arrow(table, frames.frame(table, columns), FEBRUARY, 1)


def key_part(part: Any) -> Any:
    return part.encode() if isinstance(part, str) else part


def inside(amount: str | None) -> int:
    return -1 if amount is None else int(Decimal(amount) * 10**8)


def invoice(account: str) -> tuple[Any, ...]:
    return (account, "32.0032", "3.2", "28.8032", "-0.0032", "28.8", "CNY")


def settlement(
    *accounts: str, lines: tuple[tuple[Any, ...], ...] = (DOCUMENT_LINE,)
) -> dict[str, pa.Table]:
    entries = [
        entry
        for account in accounts
        for entry in (
            (account, 1, "unfreeze", "12", "2026-01"),
            (account, 2, "debit", "28.8", None),
            (account, 3, "freeze", "34.56", "2026-02"),
        )
    ]
    return {
        "invoices": published(INVOICES, *map(invoice, accounts)),
        "lines": published(LINES, *lines),
        "entries": published(ENTRIES, *entries),
    }


def as_text(table: Table, rows: pa.Table | pa.RecordBatchReader, folder: Path) -> str:
    path = folder / "table.csv"
    write_csv(table, rows, path)
    return path.read_bytes().decode()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def parsed(content: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.removeprefix("\ufeff"), newline=""), strict=True))


# --- The bytes


def test_the_files_byte_by_byte(tmp_path: Path) -> None:
    export(settlement("0017"), **STAMP, out=tmp_path)
    assert (tmp_path / "invoices.csv").read_bytes() == (
        "\ufeff账期 month,版本 revision,账号 account_id,原价金额 list_amount,"
        "代金券金额 voucher_amount,应计金额 amount,舍入差额 rounding,应付金额 payable,"
        "币种 currency\r\n"
        "2026-02,1,0017,32.00320000,3.20000000,28.80320000,-0.00320000,28.80,CNY\r\n"
    ).encode()
    assert (tmp_path / "lines.csv").read_bytes() == (
        "\ufeff账期 month,版本 revision,账号 account_id,计费项 item,调用次数 calls,阶梯 tier,"
        "单价 unit_price,原价金额 list_amount,代金券抵扣次数 voucher_calls,"
        "代金券金额 voucher_amount,应计金额 amount\r\n"
        "2026-02,1,0017,face-comparison,10001,2,0.0032,32.00320000,1000,3.20000000,28.80320000\r\n"
    ).encode()
    assert (tmp_path / "entries.csv").read_bytes() == (
        "\ufeff账期 month,版本 revision,账号 account_id,序号 sequence,类型 kind,金额 amount,"
        "冻结账期 hold_month\r\n"
        "2026-02,1,0017,1,unfreeze,12.00,2026-01\r\n"
        "2026-02,1,0017,2,debit,28.80,\r\n"
        "2026-02,1,0017,3,freeze,34.56,2026-02\r\n"
    ).encode()


@pytest.mark.parametrize(
    ("price", "cell"),
    [
        ("0", "0.0000"),
        ("0.0005", "0.0005"),
        ("0.00032", "0.00032"),
        ("0.00000001", "0.00000001"),
        ("12.5", "12.5000"),
        ("1000", "1000.0000"),
        ("9999.99999999", "9999.99999999"),
        (None, ""),
    ],
)
def test_a_unit_price_has_four_decimals_or_as_many_as_it_needs(
    price: str | None, cell: str, tmp_path: Path
) -> None:
    line = ("a", "i", 1, 1, price, "0", 0, "0", "0")
    assert parsed(as_text(LINES, published(LINES, line), tmp_path))[1][6] == cell


@pytest.mark.parametrize(
    ("rounding", "cell"),
    [
        ("0", "0.00000000"),
        ("-0.00000001", "-0.00000001"),
        ("0.005", "0.00500000"),
        ("-0.0032", "-0.00320000"),
        ("-92233720368.54775807", "-92233720368.54775807"),
        ("92233720368.54775807", "92233720368.54775807"),
    ],
)
def test_an_amount_has_eight_decimals_its_sign_and_no_exponent(
    rounding: str, cell: str, tmp_path: Path
) -> None:
    row = ("a", "0", "0", "0", rounding, "0", "CNY")
    assert parsed(as_text(INVOICES, published(INVOICES, row), tmp_path))[1][6] == cell


@pytest.mark.parametrize(
    ("account", "cell"),
    [
        ("u-17", "u-17"),
        ("0017", "0017"),
        ("人脸 公司", "人脸 公司"),
        ("=1+1", "'=1+1"),
        ("+8613800000000", "'+8613800000000"),
        ("-7", "'-7"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", '"\'\t=1"'),
        ("\r=1", '"\'\r=1"'),
        ("\0=1", '"\'\0=1"'),
        ("a=1", "a=1"),
        ("'x", "'x"),
        ("a,b", '"a,b"'),
        ("a;b", '"a;b"'),
        ('a"b', '"a""b"'),
        ('=HYPERLINK("x","y")', '"\'=HYPERLINK(""x"",""y"")"'),
        ("a\nb", '"a\nb"'),
        ("a\r\nb", '"a\r\nb"'),
        ("a\0b", '"a\0b"'),
        ("\x1b[31m", '"\x1b[31m"'),
        (" a", '" a"'),
        ("a ", '"a "'),
        ("", '""'),
    ],
)
def test_how_an_account_id_is_written(account: str, cell: str, tmp_path: Path) -> None:
    written = as_text(INVOICES, published(INVOICES, invoice(account)), tmp_path)
    row = written.partition("\r\n")[2]
    assert row == f"2026-02,1,{cell},32.00320000,3.20000000,28.80320000,-0.00320000,28.80,CNY\r\n"


def test_a_table_without_rows_is_its_header(tmp_path: Path) -> None:
    written = as_text(ENTRIES, published(ENTRIES), tmp_path)
    assert written.count("\r\n") == 1
    assert written.endswith("冻结账期 hold_month\r\n")


def test_how_a_table_is_cut_into_batches_does_not_show(tmp_path: Path) -> None:
    three = published(INVOICES, *map(invoice, ["=1", "a", "b,c"]))
    rows = three.take(pa.array([0, 1, 2] * 25_000)).combine_chunks()
    whole = as_text(INVOICES, rows, tmp_path)
    assert as_text(INVOICES, rows.to_reader(max_chunksize=7_001), tmp_path) == whole
    assert as_text(INVOICES, pa.concat_tables([rows[:4], rows[4:]]), tmp_path) == whole
    assert parsed(whole)[1:] == parsed(as_text(INVOICES, three, tmp_path))[1:] * 25_000


amounts = st.integers(-(2**63 - 1), 2**63 - 1).map(lambda units: str(Decimal(units).scaleb(-8)))
texts = st.text(st.sampled_from("=+-@\t\r\n\0 ,;\"'a0中𠀀\x7f"), max_size=6) | st.text(max_size=9)


@settings(deadline=None)  # a busy machine is no failure
@given(rows=st.lists(st.tuples(texts, amounts, amounts), max_size=5, unique_by=lambda row: row[0]))
def test_what_is_parsed_back_is_what_was_written(
    rows: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("law")
    drawn = [(account, one, "0", two, "0", "0", "CNY") for account, one, two in rows]
    written = as_text(INVOICES, published(INVOICES, *drawn), folder)
    expected = [
        ["2026-02", "1", safe(account), eight(one), eight("0"), eight(two), eight("0"), "0.00"]
        for account, one, _, two, *_ in sorted(drawn, key=lambda row: row[0].encode())
    ]
    assert [row[:-1] for row in parsed(written)[1:]] == expected


def safe(text: str) -> str:
    return "'" + text if text.lstrip("\0")[:1] in tuple("=+-@\t\r") else text


def eight(amount: str) -> str:
    return f"{Decimal(amount):.8f}"


# --- The control file


def eight_to_two(rows: pa.Table) -> str:
    """The amounts of some entries, added up by Python."""
    return f"{sum(rows['amount'].to_pylist(), Decimal(0)):.2f}"


def test_control_totals(tmp_path: Path) -> None:
    second = ("b", "face-search", 5, 1, None, "0.00000001", 5, "0", "0.00000001")
    made = settlement("0017", "b", lines=(DOCUMENT_LINE, second))
    control = export(made, **STAMP, out=tmp_path)
    assert json.loads((tmp_path / "control.json").read_bytes()) == control
    sums = {
        "invoices.csv": {
            "list_amount": "64.00640000",
            "voucher_amount": "6.40000000",
            "amount": "57.60640000",
            "rounding": "-0.00640000",
            "payable": "57.60",
        },
        "lines.csv": {
            "calls": 10_006,
            "list_amount": "32.00320001",
            "voucher_calls": 1005,
            "voucher_amount": "3.20000000",
            "amount": "28.80320001",
        },
        "entries.csv": {"amount": "150.72"},
    }
    rows = {"invoices.csv": 2, "lines.csv": 2, "entries.csv": 6}
    kinds = {
        kind: eight_to_two(made["entries"].filter(pc.equal(made["entries"]["kind"], kind)))
        for kind in ("unfreeze", "debit", "credit", "freeze")
    }
    assert sum(map(Decimal, kinds.values())) == Decimal("150.72")
    assert control == {
        **STAMP,
        "files": {
            name: {
                "rows": rows[name],
                "sums": sums[name],
                **({"sums_by_kind": kinds} if name == "entries.csv" else {}),
                "sha256": sha256((tmp_path / name).read_bytes()).hexdigest(),
            }
            for name in rows
        },
    }


def adjusted() -> pa.Table:
    """A supplementary bill and a credit note; one account is a formula to a spreadsheet."""
    return published(
        ADJUSTMENTS,
        ("0017", "28.8", "30", "1.2", "2026-02-r2-S0000001"),
        ("=1+1", "31.36", "0", "-31.36", "2026-02-r2-C0000001"),
    )


def test_the_documents_of_a_revised_month_byte_by_byte(tmp_path: Path) -> None:
    control = export(settlement("0017") | {"adjustments": adjusted()}, **STAMP, out=tmp_path)
    assert names(tmp_path) == ["adjustments.csv", *NAMES]
    written = (tmp_path / "adjustments.csv").read_bytes()
    assert (
        written
        == (
            "\ufeff账期 month,版本 revision,账号 account_id,原应付金额 previous_payable,"
            "应付金额 payable,调整金额 adjustment,单据号 document\r\n"
            "2026-02,1,0017,28.80,30.00,1.20,2026-02-r2-S0000001\r\n"
            "2026-02,1,'=1+1,31.36,0.00,-31.36,2026-02-r2-C0000001\r\n"
        ).encode()
    )
    assert control["files"]["adjustments.csv"] == {
        "rows": 2,
        "sums": {"previous_payable": "60.16", "payable": "30.00", "adjustment": "-30.16"},
        "sha256": sha256(written).hexdigest(),
    }


def test_documents_of_another_export_do_not_stay(tmp_path: Path) -> None:
    export(settlement("a") | {"adjustments": adjusted()}, **STAMP, out=tmp_path)
    control = export(settlement("b"), **STAMP, out=tmp_path)
    assert names(tmp_path) == NAMES
    assert sorted(control["files"]) == NAMES[1:]


def test_a_sum_beyond_64_bits_is_exact(tmp_path: Path) -> None:
    large = "92233720368.54"
    rows = [("a", number, "freeze", large, "2026-02") for number in (1, 2, 3)]
    control = write_csv(ENTRIES, published(ENTRIES, *rows), tmp_path / "x.csv")
    assert control["sums"] == {"amount": "276701161105.62"}


def test_the_same_settlement_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two", "two"):
        export(settlement("a", "b"), **STAMP, out=tmp_path / folder)
    for name in NAMES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


# --- The folder


def test_an_earlier_export_is_replaced_and_other_files_stay(tmp_path: Path) -> None:
    export(settlement("old"), **STAMP, out=tmp_path)
    (tmp_path / "notes.txt").write_text("from finance")
    (tmp_path / ".draft").mkdir()
    (tmp_path / ".draft" / "lines.csv").write_text("left by a killed export")
    export(settlement("new"), **STAMP | {"revision": 2}, out=tmp_path)
    assert names(tmp_path) == [*NAMES, "notes.txt"]
    assert ",new," in (tmp_path / "invoices.csv").read_text("utf-8")
    assert json.loads((tmp_path / "control.json").read_bytes())["revision"] == 2


def test_folders_are_made(tmp_path: Path) -> None:
    export(settlement("a"), **STAMP, out=tmp_path / "exports" / "2026-02")
    assert names(tmp_path / "exports" / "2026-02") == NAMES


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(
        CannotWrite, match=r"out: cannot write \(File exists\); make room"
    ) as refusal:
        export(settlement("a"), **STAMP, out=tmp_path / "out")
    assert refusal.value.exit_code == 73
    assert (tmp_path / "out").read_text() == "a file"


def test_other_columns_than_the_declared_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    made = settlement("a")
    made["entries"] = made["entries"].drop_columns(["kind"])
    with pytest.raises(WrongTable, match="entries"):
        export(made, **STAMP, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_cut_short_while_files_are_put_in_place_there_is_no_control_file(tmp_path: Path) -> None:
    export(settlement("old"), **STAMP, out=tmp_path)
    (tmp_path / "lines.csv").unlink()
    (tmp_path / "lines.csv").mkdir()
    with pytest.raises(CannotWrite):
        export(settlement("new"), **STAMP, out=tmp_path)
    assert names(tmp_path) == ["entries.csv", "invoices.csv", "lines.csv"]


def test_two_exports_do_not_mix(tmp_path: Path) -> None:
    opened = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        with pytest.raises(CannotWrite, match="another export is writing here; wait for it"):
            export(settlement("a"), **STAMP, out=tmp_path)
    finally:
        os.close(opened)
    export(settlement("a"), **STAMP, out=tmp_path)
    assert names(tmp_path) == NAMES


FULL_DISK = """
import resource, sys
from pathlib import Path
from tests.test_exports import STAMP, settlement
from settlement.errors import CannotWrite
from settlement.exports import export
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
    export(settlement("new"), **STAMP, out=Path(sys.argv[1]))
except CannotWrite as refusal:
    print(refusal)
"""


def test_a_full_disk_leaves_the_earlier_export(tmp_path: Path) -> None:
    """The kernel refuses the 301st byte of any file, as a full disk would."""
    export(settlement("old"), **STAMP, out=tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in NAMES}
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert re.search(r"\.csv: cannot write \(File too large\); make room", run.stdout)
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


# --- As others read it

ODD = sorted(
    [
        "=1+1",
        "0017",
        "12345678901234567890",
        "2026-01-02",
        "人脸",
        "a,b",
        'a"b',
        "a\nb",
        "\x1b[31m",
    ],
    key=str.encode,
)
LAST = "龥"
LARGEST = "92233720368.54775807"


def exported(folder: Path) -> Path:
    made = settlement(*ODD)
    row = (LAST, LARGEST, "0", LARGEST, "-0.00000001", "92233720368.54", "CNY")
    made["invoices"] = published(INVOICES, *map(invoice, ODD), row)
    export(made, **STAMP, out=folder)
    return folder / "invoices.csv"


def test_pandas_reads_it(tmp_path: Path) -> None:
    read = pd.read_csv(exported(tmp_path), dtype="str", keep_default_na=False)
    assert read["账号 account_id"].tolist() == [*map(safe, ODD), LAST]
    assert read["应计金额 amount"].tolist() == ["28.80320000"] * len(ODD) + [LARGEST]
    entries = pd.read_csv(tmp_path / "entries.csv")
    assert entries["金额 amount"].dtype == "float64"
    assert entries["冻结账期 hold_month"].isna().sum() == len(ODD)


def test_duckdb_reads_it(tmp_path: Path) -> None:
    read = (
        duckdb.connect()
        .execute(
            f"""select "账号 account_id", "应计金额 amount", "舍入差额 rounding"
        from read_csv('{exported(tmp_path)}', header = true, types = {{
          '账号 account_id': 'varchar', '应计金额 amount': 'decimal(24, 8)',
          '舍入差额 rounding': 'decimal(24, 8)'}})"""
        )
        .fetchall()
    )
    assert [row[0] for row in read] == [*map(safe, ODD), LAST]
    assert read[0][1:] == (Decimal("28.8032"), Decimal("-0.0032"))
    assert read[-1][1:] == (Decimal(LARGEST), Decimal("-0.00000001"))


OFFICE = shutil.which("soffice")
ODF = "{urn:oasis:names:tc:opendocument:xmlns:%s:1.0}"
Cell = tuple[str | None, str | None, str]


def opened_by_libreoffice(file: Path, import_options: str, folder: Path) -> list[list[Cell]]:
    """Open a CSV as a spreadsheet; of each cell its type, its formula and what is shown."""
    subprocess.run(
        [
            str(OFFICE),
            f"-env:UserInstallation={(folder / 'profile').as_uri()}",
            "--headless",
            f"--infilter=CSV:{import_options}",
            "--convert-to",
            "fods",
            "--outdir",
            folder / "sheets",
            file,
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    sheet = ET.parse(folder / "sheets" / f"{file.stem}.fods")
    return [
        [
            (
                cell.get(ODF % "office" + "value-type"),
                cell.get(ODF % "table" + "formula"),
                "\n".join("".join(p.itertext()) for p in cell.iter(ODF % "text" + "p")),
            )
            for cell in row.iter(ODF % "table" + "table-cell")
        ]
        for row in sheet.iter(ODF % "table" + "table-row")
    ]


COMMA_QUOTE_UTF8 = "44,34,76,1"
ACCOUNTS_AS_TEXT = f"{COMMA_QUOTE_UTF8},3/2"


@pytest.mark.skipif(OFFICE is None, reason="LibreOffice (soffice) is not installed")
def test_libreoffice_opens_it(tmp_path: Path) -> None:
    rows = opened_by_libreoffice(exported(tmp_path), ACCOUNTS_AS_TEXT, tmp_path)
    assert [cell[2] for cell in rows[0]][:3] == ["账期 month", "版本 revision", "账号 account_id"]
    shown = [re.sub("\x1b", "", safe(account)) for account in ODD]  # it drops control characters
    assert [row[2] for row in rows[1:-1]] == [("string", None, account) for account in shown]
    assert ("string", None, "0017") in [row[2] for row in rows]
    assert [cell[:2] for cell in rows[1][3:8]] == [("float", None)] * 5
    assert rows[1][6][2] == "-0.0032"


@pytest.mark.skipif(OFFICE is None, reason="LibreOffice (soffice) is not installed")
def test_libreoffice_computes_no_account_id_of_ours(tmp_path: Path) -> None:
    """The second file shows that it would: the same ids, as they are."""
    ids = ["=1+1", '=HYPERLINK("http://x","y")', "+1", "-7", "@SUM(A1)", "\0=1+1", "\t=1", "\r=1"]
    export(settlement(*ids), **STAMP, out=tmp_path)
    rows = opened_by_libreoffice(tmp_path / "invoices.csv", COMMA_QUOTE_UTF8, tmp_path)
    assert {row[2][:2] for row in rows[1:]} == {("string", None)}
    bare = tmp_path / "bare.csv"
    bare.write_text("id\r\n=1+1\r\n\0=1+1\r\n0017\r\n")
    rows = opened_by_libreoffice(bare, COMMA_QUOTE_UTF8, tmp_path)
    assert [row[0] for row in rows[1:4]] == [
        ("float", "of:=1+1", "2"),
        ("float", "of:=1+1", "2"),
        ("float", None, "17"),
    ]
