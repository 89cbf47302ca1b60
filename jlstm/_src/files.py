"""Reads series from files, and writes files completely or not at all.

Messages count rows of a CSV file by the line on which they end, from 1, as an editor does. They
count columns without a name, and everything in a .npy file, from 0, as NumPy does.
"""

import codecs
import csv
import itertools
import os
import re
import secrets
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Writer = Callable[[BinaryIO], object]  # writes the content of a file

FLOATS = ("float64", "float32", "bfloat16", "float16")
TEMPORARY = ".jlstm-"  # prefix of incomplete files
BROKEN = "it is broken, or holds Python objects"

# Texts of a missing cell in lower case: those of pandas, and "?".
MISSING = {"", "?", "<na>", "#n/a", "#na", "-nan", "n/a", "na", "nan", "none", "null"}
NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)", re.ASCII | re.IGNORECASE)
COMMA = re.compile(r"\s*[+-]?\d*,\d+\s*", re.ASCII)  # a decimal comma
HINTS = {
    ";": "a semicolon; pass --delimiter ';' if it separates cells, else ','",
    "\t": "a tab; pass --delimiter tab if it separates cells, else ','",
    "\n": "a line break inside quotes; is a quote not closed?",
    ",": "a comma; write numbers with a decimal point",
}


def read_series(
    path: str,
    columns: Sequence[str] | None = None,
    *,
    header: bool | None = None,
    delimiter: str | None = None,
    missing: bool = False,
    note: Callable[[str], object] = lambda text: None,
) -> np.ndarray:
    """Reads a series `[T, D]` in float64 from a .csv file, UTF-8 text, or a .npy file.

    A .npy file holds floats or ints, `[T, D]`, or `[T]` for D = 1.

    Args:
      columns: the D columns to read, by name or by place from 0; None reads all. Cells of other
        columns may hold anything.
      header: whether the first row of a .csv file holds names. None reads it as names if some cell
        is neither a number nor missing, and refuses numbers that may be names, or notes them by
        the function `note`.
      delimiter: the character between the cells of a .csv file; None is a comma.
      missing: whether cells may be missing, which are NaN in the result.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is empty, ragged or broken, has no such column, or a cell is not a finite
        number. The message names the file, the row and the column.
    """
    check_suffix(path, ".csv", ".npy")
    if suffix(path) == ".npy" and (header is not None or delimiter is not None):
        raise ValueError(f"{path}: a .npy file has no header and no delimiter")
    try:
        if suffix(path) == ".csv":
            return _read_csv(path, columns, header, delimiter, missing, note)
        return _read_npy(path, columns, missing)
    except OSError as error:  # one of reading, rather than opening, lacks the name
        raise OSError(error.errno, error.strerror, path) from None


def suffix(path: str) -> str:
    """Returns the ending of a file's name in lower case, ".csv" of "A.CSV"."""
    return Path(path).suffix.lower()


def _read_csv(path, columns, header, delimiter, missing, note) -> np.ndarray:
    with open(path, encoding="utf-8-sig", newline="") as file:
        form = {"delimiter": delimiter or ",", "skipinitialspace": delimiter != " "}
        reader = csv.reader(_lines(path, file), strict=True, **form)
        try:
            rows = _full_rows(path, reader)
            first = next(rows, None)
            if first is None:
                raise ValueError(f"{path}: the file is empty")
            names = _names(f"{path}: row 1", first, header, delimiter)
            rows = rows if names else itertools.chain([first], rows)
            places = _places(path, columns, names, len(first))
            series = _parse(path, reader, rows, len(first), places, names, missing)
        except UnicodeDecodeError as error:
            utf16 = error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            raise ValueError(f"{path}: {'UTF-16' if utf16 else 'not UTF-8'} text") from None
        except csv.Error as error:
            raise ValueError(f"{path}: row {reader.line_num}: {error}") from None
    if names is None and header is None and _may_be_names(series):
        advice = "is read as data; pass --header if it has names, or --no-header"
        note(f"{path}: row 1, {shorten(','.join(first))}, {advice}")
    return series


def _may_be_names(series: np.ndarray) -> bool:
    """Whether the first row may be names: 0 in a single column, or integers above fractions."""
    whole = series % 1 == 0
    above = len(series) > 1 and whole[0].all() and whole[1:].mean() < 0.5
    return above or (series.shape[1] == 1 and series[0, 0] == 0)


def _lines(path: str, file: Iterable[str]) -> Iterator[str]:
    """Yields the lines of a file; refuses those that csv would misread."""
    before = ""
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise ValueError(f"{path}: row {number}: a zero byte; expected UTF-8 text")
        if line == "\r\n" and before.endswith("\r"):
            raise ValueError(rf"{path}: row {number}: lines end in \r\r\n; expected \r\n or \n")
        before = line
        yield line


def _parse(path, reader, rows, width, places, names, missing) -> np.ndarray:
    """Reads the rows one by one into a flat buffer of doubles, 8 bytes a cell."""
    values = array("d")
    for cells in rows:
        row = f"{path}: row {reader.line_num}"
        if len(cells) != width:
            raise ValueError(f"{row}: expected {width} cells, got {len(cells)}")
        for k in places:
            number = _number(cells[k])
            if missing and cells[k].strip().lower() in MISSING:
                number = nan
            elif number is None or not isfinite(number):
                column = repr(names[k]) if names else k
                raise ValueError(f"{row}, column {column}: {_expected_number(cells[k])}")
            values.append(number)
    if not values:
        raise ValueError(f"{path}: the file has a header and no rows")
    return np.frombuffer(values).reshape(-1, len(places))


def _expected_number(got: Any) -> str:
    """Returns a message: why a cell is not a number, and how to correct it."""
    hints = [hint for mark, hint in HINTS.items() if mark in str(got)]
    if str(got).strip().lower() in MISSING:
        hints = ["a missing cell; pass --missing mask, or leave out its row or column"]
    text = shorten(got) if isinstance(got, str) else got
    return ": ".join([f"expected a finite number, got {text}", *hints[:1]])


def _full_rows(path: str, reader) -> Iterator[list[str]]:
    """Yields the rows; refuses empty lines, except at the end of the file."""
    empty = 0
    for cells in reader:
        if cells and empty:
            raise ValueError(f"{path}: row {empty}: the row is empty")
        if cells:
            yield cells
        else:
            empty = empty or reader.line_num


def _number(cell: str) -> float | None:
    """Returns the number in a cell, or None; Python alone would read 1_000 as a number."""
    return float(cell) if NUMBER.fullmatch(cell.strip(" \t")) else None


def _names(where: str, first: list[str], header: bool | None, delimiter: str | None):
    """Returns the names of the columns, or None if the first row holds data."""
    names = [cell.strip() for cell in first]
    if names[0].lower().startswith("sep="):
        raise ValueError(f"{where}: remove {names[0]!r}, and pass --delimiter")
    for k, cell in enumerate(first):
        odd = ("," if not header and COMMA.fullmatch(cell) else "") + ";\t" * (delimiter is None)
        for mark in set(odd) & set(cell):
            raise ValueError(f"{where}, column {k}: got {shorten(cell)}: {HINTS[mark]}")
    if header is not None:
        return names if header else None
    numbers = [number for cell in first if (number := _number(cell)) is not None]
    missing = sum(name.lower() in MISSING for name in names)
    if len(numbers) + missing < len(first):
        return names
    if not numbers:
        raise ValueError(f"{where}: all cells are missing; --header takes them as names")
    if len(first) > 1 and (numbers == list(range(len(numbers))) or not names[0]):
        raise ValueError(f"{where}: names or data? pass --header or --no-header")
    return None


def _places(path: str, columns: Sequence[str] | None, names: list[str] | None, width: int):
    if columns is None:
        return range(width)
    names, places = names or [], []
    for column in columns:
        if names.count(column) > 1:
            raise ValueError(f"{path}: more than one column is named {column!r}")
        if column in names:
            places.append(names.index(column))
        elif column.isdecimal() and int(column) < width:
            places.append(int(column))
        else:
            known = f"{', '.join(names)}, or by place " if names else ""
            raise ValueError(f"{path}: no column {column!r}; expected {known}0 to {width - 1}")
    if len(set(places)) < len(places):
        raise ValueError(f"{path}: a column is asked for twice in {', '.join(columns)}")
    return places


def shorten(text: str) -> str:
    """Quotes a piece of a file for a message, cut to a few words."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _read_npy(path: str, columns: Sequence[str] | None, missing: bool) -> np.ndarray:
    with open(path, "rb") as file:
        try:
            series = np.lib.format.read_array(file, allow_pickle=False)
        except OSError:
            raise
        except Exception:  # NumPy raises many kinds of error for a broken file
            raise ValueError(f"{path}: not a readable .npy file: {BROKEN}") from None
    if series.dtype.kind not in "fiu" or series.ndim not in (1, 2) or series.size == 0:
        got = f"{series.dtype}{list(series.shape)}"
        raise ValueError(f"{path}: expected floats or ints of shape [T, D] or [T], got {got}")
    series = series.reshape(len(series), -1)
    places = list(_places(path, columns, None, series.shape[1]))
    series = series[:, places].astype(np.float64)
    bad = np.argwhere(np.isinf(series) if missing else ~np.isfinite(series))
    if len(bad):
        where, got = f"row {bad[0][0]}, column {places[bad[0][1]]}", series[tuple(bad[0])]
        raise ValueError(f"{path}: {where}: {_expected_number(got)}")
    return series


def states_writer(path: str, H: np.ndarray, C: np.ndarray) -> Writer:
    """Makes a writer of the histories `H [T, H]` and `C [T, H]`, as columns h0, h1, …, c0, c1, …"""
    # Neither format has bfloat16; float32 holds each of its values.
    H, C = (a.astype(np.float32) if a.dtype.name == "bfloat16" else a for a in (H, C))
    units = range(H.shape[1])
    table = {f"h{k}": H[:, k] for k in units} | {f"c{k}": C[:, k] for k in units}
    return table_writer(path, table, {"H": H, "C": C})


def table_writer(path: str, table: Mapping[str, Any], arrays: Mapping[str, Any]) -> Writer:
    """Makes a writer of the table, given by column, to a .csv file, or of the arrays to a .npz."""
    if suffix(path) == ".npz":
        return lambda file: np.savez(file, **arrays)
    rows = zip(*table.values(), strict=True)
    return csv_writer(table, ([number.item() for number in row] for row in rows))


def csv_writer(names: Iterable[str], rows: Iterable[Iterable[Any]]) -> Writer:
    """Makes a writer of rows under a header; None is an empty cell."""

    def write(file: BinaryIO) -> None:
        writer = csv.writer(codecs.getwriter("utf-8")(file), lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)

    return write


def check_suffix(path: str, *expected: str) -> None:
    """Refuses a name that does not end in one of these."""
    if suffix(path) not in expected:
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(expected)}")


def check_writable(path: str, *endings: str) -> None:
    """Checks that a path can be written and has one of these endings."""
    check_suffix(path, *endings)
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    there = os.path.exists(target)
    if not os.path.isdir(folder):
        raise ValueError(f"{path}: cannot be written: there is no folder {os.path.dirname(path)}")
    if there and not os.path.isfile(target):
        raise ValueError(f"{path}: cannot be written: it is not a file")
    if not os.access(target if there else folder, os.W_OK):
        raise ValueError(f"{path}: cannot be written: permission denied")


def atomic_write(writers: Mapping[str, Writer]) -> None:
    """Writes files, all of them completely or none of them.

    Writes all files beside their places and syncs them to the disk before it renames the first. A
    failure leaves existing files unchanged and no temporary files. Its `OSError` has the path.
    """
    temporaries: list[tuple[str, str]] = []
    path = ""
    try:
        for path, write in writers.items():
            target = os.path.realpath(path)  # a link stays a link
            beside = os.path.join(os.path.dirname(target), f"{TEMPORARY}{secrets.token_hex(8)}.tmp")
            temporaries.append((beside, target))
            with open(beside, "xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if os.path.exists(target):
                os.chmod(beside, os.stat(target).st_mode)
        for beside, path in temporaries:
            os.replace(beside, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), path) from None
    finally:
        for beside, _ in temporaries:
            Path(beside).unlink(missing_ok=True)
