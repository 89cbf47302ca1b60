"""Series and histories in files: what is read is checked, what is written is whole.

A row of a CSV file is counted as the line of the file that it ends on, from 1, as an editor shows
it; columns without a name, and all of a .npy file, are counted from 0, as NumPy does.
"""

import codecs
import csv
import os
import secrets
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Writer = Callable[[BinaryIO], object]

FLOATS = ("float64", "float32", "bfloat16", "float16")


def read_series(path: str, columns: Sequence[str] | None = None) -> np.ndarray:
    """A series `[T, D]` in float64 from a .csv or .npy file.

    A .csv file is UTF-8 text with commas between the cells. Its first row is a header unless it
    is all numbers. A .npy file holds an array `[T, D]`, or `[T]` for D = 1, of floats or ints.

    Args:
      path: ends in .csv or .npy.
      columns: the D columns to take, by name or by place counted from 0; None takes all. Cells of
        other columns may hold anything.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is empty, ragged or broken, has no such column, or a cell in the columns
        taken is not a finite number. The message names the file, the row and the column.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "series.csv")
    ...     _ = path.write_text("day,wind,rain\\nMon,1.5,0\\nTue,2.5,4\\n")
    ...     read_series(str(path), ["rain", "wind"])
    array([[0. , 1.5],
           [4. , 2.5]])
    """
    check_suffix(path, ".csv", ".npy")
    return (_read_csv if suffix(path) == ".csv" else _read_npy)(path, columns)


def suffix(path: str) -> str:
    """The ending of a file's name in lower case, ".csv" of "A.CSV"."""
    return Path(path).suffix.lower()


# --- CSV


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
    """Streams the rows into one flat buffer of doubles: 8 bytes a cell, and nothing else grows."""
    rows = _full_rows(path, reader)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{path}: the file is empty")
    width, names = len(first), _header(path, first)
    places = _places(path, columns, names, width)
    values = array("d")

    def take(cells: list[str]) -> None:
        row = f"{path}: row {reader.line_num}"
        if len(cells) != width:
            raise ValueError(f"{row}: expected {width} cells, got {len(cells)}")
        numbers = [_number(cells[k]) for k in places]
        if not all(map(isfinite, numbers)):
            k = next(k for k in places if not isfinite(_number(cells[k])))
            column = repr(names[k]) if names else k
            got = shorten(cells[k])
            raise ValueError(f"{row}, column {column}: expected a finite number, got {got}")
        values.extend(numbers)

    if names is None:
        take(first)
    for cells in rows:
        take(cells)
    if not values:
        raise ValueError(f"{path}: the file has a header and no rows")
    return np.frombuffer(values).reshape(-1, len(places))


def _full_rows(path: str, reader) -> Iterator[list[str]]:
    """The rows; empty lines are let pass at the end of the file, and nowhere else."""
    empty = 0
    for cells in reader:
        if not cells:
            empty = empty or reader.line_num
        elif empty:
            raise ValueError(f"{path}: row {empty}: the row is empty")
        else:
            yield cells


def _number(cell: str) -> float:
    """The number in a cell, NaN where there is none. Python alone would read 1_000 as one."""
    try:
        return nan if "_" in cell else float(cell)
    except ValueError:
        return nan


def _header(path: str, cells: list[str]) -> list[str] | None:
    """The names in the first row, None if it is all numbers.

    A row that mixes numbers and text is refused: taken for a header it would be lost silently.
    """
    numeric = [cell.strip().lower() in _NOT_FINITE or isfinite(_number(cell)) for cell in cells]
    if all(numeric):
        return None
    if not any(numeric):
        return [cell.strip() for cell in cells]
    text, number = shorten(cells[numeric.index(False)]), shorten(cells[numeric.index(True)])
    raise ValueError(
        f"{path}: row 1, column {numeric.index(False)}: expected all numbers or all names, "
        f"got {text} beside {number}"
    )


_NOT_FINITE = ("nan", "inf", "-inf", "infinity", "-infinity")  # numbers to Python, refused later


def _places(path: str, columns: Sequence[str] | None, names: list[str] | None, width: int):
    """Where the columns asked for stand."""
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
    """A piece of a file as it may stand in a message: quoted, and cut to a few words."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


# --- .npy


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
    rows, columns_ = np.nonzero(~np.isfinite(series))
    if len(rows):
        where = f"row {rows[0]}, column {places[columns_[0]]}"
        got = series[rows[0], columns_[0]]
        raise ValueError(f"{path}: {where}: expected a finite number, got {got}")
    return series


BROKEN = "it is broken, or holds Python objects"


# --- writing


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
    """Refuses, without touching anything, a path that cannot be written.

    Raises:
      ValueError: the name has none of these endings; there is something other than a file, or no
        folder to write to, or no permission.
    """
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
    """Writes files, all of them whole or none of them at all.

    Each is written beside its place and brought to the disk; only when all are there do they take
    their places. On any failure what was there is untouched and nothing is left lying about.

    Args:
      writers: for each path what writes the content into the file opened for it.

    Raises:
      OSError: naming the path that could not be written.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     atomic_write({os.path.join(folder, "a.txt"): lambda file: file.write(b"whole")})
    ...     os.listdir(folder)
    ['a.txt']
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
