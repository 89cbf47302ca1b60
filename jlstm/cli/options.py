"""The options of the command line: each parses a text, or refuses it in one line."""

import argparse
import contextlib
import csv
import sys
from collections.abc import Callable, Iterable
from functools import partial
from math import isfinite

import numpy as np

from jlstm._src import files


def add(group, option: str, parse: Callable, metavar: str | None, what: str, **more) -> None:
    """Declares an option with a value."""
    group.add_argument(option, type=parse, metavar=metavar, help=what, **more)


def add_series(group, what: str) -> None:
    """Declares the options of a series from a file."""
    add(group, "--input", path, "FILE", f"{what}: .csv, .npy")
    add(group, "--columns", columns, "A,B", "columns of the input, by name or place from 0 (all)")
    which = "whether the first row of a .csv holds names (if a cell is text)"
    group.add_argument("--header", action=argparse.BooleanOptionalAction, help=which)
    add(group, "--delimiter", delimiter, "C", "between the cells of a .csv: a character or tab (,)")


def read_series(source: str, **given) -> np.ndarray:
    """Reads a series, and prints a note if its first row may hold names."""
    return files.read_series(source, **given, note=lambda text: print(text, file=sys.stderr))


def whole_number(least: int, most: int, text: str) -> int:
    """Parses a whole number from `least` to `most`."""
    with contextlib.suppress(ValueError):
        if least <= int(text) <= most:
            return int(text)
    raise _refusal(f"a whole number from {least} to {most}", text)


size, index = partial(whole_number, 1, 2**31 - 1), partial(whole_number, 0, 2**31 - 1)


def choice(known: Iterable[str], expected: str, text: str) -> str:
    """Parses a known name."""
    if text not in known:
        raise _refusal(expected, text)
    return text


def delimiter(text: str) -> str:
    """Parses the character between the cells of a row."""
    text = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(text) == 1 and text not in '"\r\n':
        return text
    raise _refusal("a character or tab", text)


def columns(text: str) -> list[str]:
    """Parses the columns of a series, by name or by place, separated by commas."""
    names = [column.strip() for column in next(csv.reader([text]), [])]
    if not all(names) or not names:
        raise _refusal("names or places", text)
    return names


def choices(known: tuple[str, ...], text: str) -> list[str]:
    """Parses different known names, separated by commas."""
    names = [name.strip() for name in text.split(",")]
    if set(names) <= set(known) and len(set(names)) == len(names):
        return names
    raise _refusal(f"different ones of {', '.join(known)}", text)


def fraction(text: str) -> float:
    """Parses a number between 0 and 1."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise _refusal("a number between 0 and 1", text)


def path(text: str) -> str:
    """Parses the name of a file or folder."""
    if not text:
        raise _refusal("the name of a file", text)
    return text


def numbers(
    bounds: str, inside: Callable[[float], bool], text: str, *, word: str | None = None
) -> list[float | str]:
    """Parses different finite numbers inside bounds, or a word, separated by commas."""
    with contextlib.suppress(ValueError):
        parts = [part.strip() for part in text.split(",")]
        values = [part if part == word else float(part) for part in parts]
        allowed = (isinstance(x, str) or (isfinite(x) and inside(x)) for x in values)
        if all(allowed) and len(set(values)) == len(values):
            return values
    raise _refusal(f"different numbers {bounds}", text)


def _refusal(expected: str, text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
