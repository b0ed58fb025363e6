"""Files of logs, CSV tables and NumPy archives, as columns by name."""

from __future__ import annotations

import codecs
import csv
import difflib
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import UserError

Column = NDArray[Any]
TABLES = (".csv", ".tsv")
ENCODING = "utf-8"
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # say it themselves
TRUTH = {"true": "1", "false": "0", "on": "1", "off": "0"}
MOST_WORDS = 0.5  # share of a column beyond which it is none of numbers
DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")


def read_columns(path: Path, encoding: str = ENCODING) -> Mapping[str, Column]:
    """Every column of a table, as text, or every array of an archive.

    Args:
        path: ``.csv``, with commas between cells or, as spreadsheets write it where numbers have a decimal comma, with
            semicolons; ``.tsv``; or ``.npz``.
        encoding: of a table that does not begin with a mark of its own.

    Raises:
        UserError: if it is none of these, or damaged.
    """
    kind = path.suffix.lower()
    if kind == ".npz":
        return _read_archive(path)
    if kind not in TABLES:
        raise UserError(f"{path} is no .csv, .tsv or .npz file: write the log as one of these")
    try:
        with path.open("rb") as begun:
            first = begun.read(4)
        written = next((name for mark, name in MARKS.items() if first.startswith(mark)), encoding)
        with path.open(newline="", encoding=written) as file:
            delimiter = "\t" if kind == ".tsv" else _delimiter(file.readline(), file.readline())
            file.seek(0)
            rows = list(csv.reader(file, delimiter=delimiter))
    except UnicodeError as error:
        raise UserError(
            f"cannot read {path}: it is not in {written.upper()} ({error}): say which encoding it is in, such as "
            "--encoding cp1252 for Windows in Western Europe"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    while rows and not rows[-1]:  # many loggers end with an empty line
        rows.pop()
    header, rows = (rows[0], rows[1:]) if rows else ([], [])
    names = [name.strip() for name in header]
    if len(rows) < 1 or not all(names) or len(set(names)) != len(names):
        raise UserError(f"{path} is no table: its first line has to name every column once, and rows have to follow")
    for index, row in enumerate(rows):
        if not row:
            raise UserError(f"{place(path, index)}: the line is empty: leave it out")
        if len(row) != len(names):
            raise UserError(f"{place(path, index)}: it has {len(row)} cells, where the header names {len(names)}")
    cell = _with_point if delimiter == ";" else str.strip
    return {name: np.array([cell(row[index]) for row in rows]) for index, name in enumerate(names)}


def column(path: Path, columns: Mapping[str, Column], name: str) -> Column:
    """One of the columns of a file.

    Raises:
        UserError: naming the nearest one, if there is none of that name.
    """
    if name not in columns:
        written = {each.lower(): each for each in columns}
        near = difflib.get_close_matches(name.lower(), written, n=1)
        hint = f"did you mean {written[near[0]]!r}?" if near else f"it has {', '.join(columns)}"
        raise UserError(f"{path} has no {name!r}: {hint}")
    return columns[name]


def numbers(
    path: Path, columns: Mapping[str, Column], names: Sequence[str], words: bool | None = None
) -> NDArray[np.float64]:
    """Columns as numbers, ``(T, features)``; not a number where a cell is empty.

    Args:
        path: of the file.
        columns: of it.
        names: of those that are wanted.
        words: whether cells that hold something else are no numbers either, with a warning, as long as most are;
            ``None`` where they cannot be.

    Raises:
        UserError: if a cell holds something else.
    """
    parts = []
    for name in names:
        values = column(path, columns, name)
        if values.ndim not in (1, 2) or values.dtype.kind not in "biufU":
            raise UserError(f"{path}: {name} is no column of real numbers, nor a table of them")
        try:
            found = values.astype(np.float64)
        except ValueError:
            found = _readable(path, name, values, words)
        parts.append(found.reshape(len(values), -1))
    return np.concatenate(parts, axis=1)


def place(path: Path, row: int) -> str:
    """Where a row is, counted from 1, and the line of a text file, which its header comes before."""
    line = f" (line {row + 2})" if path.suffix.lower() in TABLES else ""
    return f"{path}, row {row + 1}{line}"


def _readable(path: Path, name: str, texts: Column, words: bool | None) -> NDArray[np.float64]:
    """Texts as numbers, where empty cells are not a number, and truth values are 1 and 0."""
    lowered = np.char.lower(np.char.strip(texts))
    found = np.where(lowered == "", "nan", texts)
    for word, number in TRUTH.items():
        found = np.where(lowered == word, number, found)
    try:
        return found.astype(np.float64)
    except ValueError:
        others = np.array([not _is_number(cell) for cell in found])
        row = int(others.argmax())
        if words and others.sum() <= MOST_WORDS * len(others):
            warnings.warn(
                f"{path}: {others.sum()} of {len(others)} cells of {name} hold no number, such as "
                f"{str(texts[row])!r}: taken for missing",
                stacklevel=2,
            )
            return np.where(others, "nan", found).astype(np.float64)
        advice = ": repair it, or have such cells taken for missing with --missing split" if words is False else ""
        raise UserError(f"{place(path, row)}: {name} is {str(texts[row])!r}, which is no number{advice}") from None


def _is_number(cells: Any) -> bool:
    try:
        np.asarray(cells).astype(np.float64)
    except ValueError:
        return False
    return True


def _delimiter(header: str, row: str) -> str:
    """The one by which a header and the row below it have as many cells, the more the better."""

    def cells(delimiter: str) -> tuple[bool, int]:
        first, second = (len(next(csv.reader([line], delimiter=delimiter), [])) for line in (header, row))
        return first == second, first

    return max((",", ";"), key=cells)


def _with_point(cell: str) -> str:
    cell = cell.strip()
    return cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell


def _read_archive(path: Path) -> Mapping[str, Column]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except Exception as error:  # a damaged archive has zipfile, zlib and NumPy raise many kinds
        raise UserError(f"cannot read {path}: {error or type(error).__name__}") from error
