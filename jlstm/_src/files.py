"""Reads series from files, and writes histories and other files completely or not at all.

Messages count a row of a CSV file by the line that it ends on, from 1, as an editor does. They
count columns without a name, and everything in a .npy file, from 0, as NumPy does.
"""

import codecs
import csv
import itertools
import os
import secrets
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Writer = Callable[[BinaryIO], object]  # writes the content of a file

FLOATS = ("float64", "float32", "bfloat16", "float16")


def read_series(path: str, columns: Sequence[str] | None = None) -> np.ndarray:
    """Reads a series `[T, D]` in float64 from a .csv or .npy file.

    A .csv file is UTF-8 text with commas between the cells. Its first row is a header unless it
    is all numbers. A .npy file holds an array `[T, D]`, or `[T]` for D = 1, of floats or ints.

    `columns` are the D columns to take, by name or by place counted from 0; None takes all. Cells
    of other columns may hold anything.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is empty, ragged or broken, has no such column, or a cell in the columns
        taken is not a finite number. The message names the file, the row and the column.
    """
    check_suffix(path, ".csv", ".npy")
    return (_read_csv if suffix(path) == ".csv" else _read_npy)(path, columns)


def suffix(path: str) -> str:
    """Returns the ending of a file's name in lower case, ".csv" of "A.CSV"."""
    return Path(path).suffix.lower()


def _read_csv(path: str, columns: Sequence[str] | None) -> np.ndarray:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True, skipinitialspace=True)
        try:
            return _parse_csv(path, reader, columns)
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not UTF-8 text") from None
        except csv.Error as error:
            raise ValueError(f"{path}: row {reader.line_num}: {error}") from None


def _parse_csv(path: str, reader, columns: Sequence[str] | None) -> np.ndarray:
    """Streams the rows into a flat buffer of doubles, 8 bytes a cell; nothing else grows."""
    rows = _full_rows(path, reader)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{path}: the file is empty")
    width, names = len(first), _header(path, first)
    places = _places(path, columns, names, width)
    values = array("d")
    for cells in rows if names else itertools.chain([first], rows):
        row = f"{path}: row {reader.line_num}"
        if len(cells) != width:
            raise ValueError(f"{row}: expected {width} cells, got {len(cells)}")
        for k in places:
            number = _number(cells[k])
            if number is None or not isfinite(number):
                column, got = repr(names[k]) if names else k, shorten(cells[k])
                raise ValueError(f"{row}, column {column}: expected a finite number, got {got}")
            values.append(number)
    if not values:
        raise ValueError(f"{path}: the file has a header and no rows")
    return np.frombuffer(values).reshape(-1, len(places))


def _full_rows(path: str, reader) -> Iterator[list[str]]:
    """Yields the rows; refuses empty lines, except at the end of the file."""
    empty = 0
    for cells in reader:
        if not cells:
            empty = empty or reader.line_num
        elif empty:
            raise ValueError(f"{path}: row {empty}: the row is empty")
        else:
            yield cells


def _number(cell: str) -> float | None:
    """Returns the number in a cell, if it has one; Python alone would read 1_000 as a number."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _header(path: str, cells: list[str]) -> list[str] | None:
    """Returns the names in the first row, None if it is all numbers; refuses a mixture."""
    numeric = [_number(cell) is not None for cell in cells]
    if all(numeric):
        return None
    if not any(numeric):
        return [cell.strip() for cell in cells]
    text, number = shorten(cells[numeric.index(False)]), shorten(cells[numeric.index(True)])
    raise ValueError(
        f"{path}: row 1, column {numeric.index(False)}: expected all numbers or all names, "
        f"got {text} beside {number}"
    )


def _places(path: str, columns: Sequence[str] | None, names: list[str] | None, width: int):
    """Returns the places of the columns to take."""
    if columns is None:
        return range(width)
    places = [_place(path, column, names or [], width) for column in columns]
    if len(set(places)) < len(places):
        raise ValueError(f"{path}: a column is asked for twice in {', '.join(columns)}")
    return places


def _place(path: str, column: str, names: list[str], width: int) -> int:
    if names.count(column) > 1:
        raise ValueError(f"{path}: more than one column is named {column!r}")
    if column in names:
        return names.index(column)
    if column.isdecimal() and int(column) < width:
        return int(column)
    known = f"{', '.join(names)}, or by place " if names else ""
    raise ValueError(f"{path}: no column {column!r}; expected {known}0 to {width - 1}")


def shorten(text: str) -> str:
    """Quotes a piece of a file for a message, cut to a few words."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _read_npy(path: str, columns: Sequence[str] | None) -> np.ndarray:
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
    bad = np.argwhere(~np.isfinite(series))
    if len(bad):
        where, got = f"row {bad[0][0]}, column {places[bad[0][1]]}", series[tuple(bad[0])]
        raise ValueError(f"{path}: {where}: expected a finite number, got {got}")
    return series


BROKEN = "it is broken, or holds Python objects"


def states_writer(path: str, H: np.ndarray, C: np.ndarray) -> Writer:
    """Makes a writer of the histories `H [T, H]` and `C [T, H]` to a .npz or .csv file.

    A .npz file holds the arrays H and C. A .csv file has the header h0, h1, …, c0, c1, … and a row
    a step, with as many digits as give the same numbers back.
    """
    # Neither format has bfloat16; float32 holds each of its values.
    H, C = (a.astype(np.float32) if a.dtype.name == "bfloat16" else a for a in (H, C))
    if suffix(path) == ".npz":
        return lambda file: np.savez(file, H=H, C=C)
    names = [f"{letter}{unit}" for letter in "hc" for unit in range(H.shape[1])]
    rows = zip(np.asarray(H, np.float64), np.asarray(C, np.float64), strict=True)
    return csv_writer(names, (h.tolist() + c.tolist() for h, c in rows))


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
    if not os.path.isdir(folder):
        raise ValueError(f"{path}: cannot be written: there is no folder {os.path.dirname(path)}")
    if os.path.exists(target) and not os.path.isfile(target):
        raise ValueError(f"{path}: cannot be written: it is not a file")
    if not os.access(target if os.path.exists(target) else folder, os.W_OK):
        raise ValueError(f"{path}: cannot be written: permission denied")


def atomic_write(writers: Mapping[str, Writer]) -> None:
    """Writes files, all of them completely or none of them.

    All files are written beside their places and synced to the disk before the first is renamed.
    A failure leaves existing files unchanged and no temporary files.

    Raises:
      OSError: a file cannot be written; the error has its path.
    """
    temporaries: list[tuple[str, str]] = []
    path = ""
    try:
        for path, write in writers.items():
            target = os.path.realpath(path)  # a link stays a link
            beside = os.path.join(os.path.dirname(target), f".jlstm-{secrets.token_hex(8)}.tmp")
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
