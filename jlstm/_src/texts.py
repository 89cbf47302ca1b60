"""Parsers of the texts of options and settings; each returns a value, or raises a ValueError."""

import csv
import re
from collections.abc import Callable, Iterable
from functools import partial
from math import isfinite

from jlstm._src.files import NUMBER, shorten


def whole_number(least: int, most: int, text: str) -> int:
    """Parses a whole number from `least` to `most`, in ASCII digits."""
    if re.fullmatch("[+-]?[0-9]{1,20}", text.strip()) and least <= int(text) <= most:
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
    if not all(names) or not names or "\n" in text or "\r" in text:
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
    if NUMBER.fullmatch(text.strip()) and 0 < float(text) < 1:
        return float(text)
    raise _refusal("a number between 0 and 1", text)


def flag(text: str) -> bool:
    """Parses a boolean of settings.json; on the command line it is a switch."""
    return choice(("False", "True"), "true or false", text) == "True"


def path(text: str) -> str:
    """Parses the name of a file or folder."""
    if not text or not text.isprintable():  # bytes that are not UTF-8 are not printable
        raise _refusal("the name of a file", ascii(text)[1:-1])
    return text


def numbers(
    bounds: str, inside: Callable[[float], bool], text: str, *, word: str | None = None
) -> list[float | str]:
    """Parses different finite numbers inside bounds, or a word, separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if all(part == word or NUMBER.fullmatch(part) for part in parts):
        values = [part if part == word else float(part) for part in parts]
        allowed = (isinstance(x, str) or (isfinite(x) and inside(x)) for x in values)
        if all(allowed) and len(set(values)) == len(values):
            return values
    raise _refusal(f"different numbers {bounds}", text)


def _refusal(expected: str, text: str) -> ValueError:
    return ValueError(f"expected {expected}, got {shorten(text)}")
