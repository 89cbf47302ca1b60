"""Parsers of the texts of options and settings; each returns a value, or raises a ValueError."""

import csv
import re
from collections.abc import Callable, Iterable
from functools import partial
from math import isfinite

from jlstm._src.files import NUMBER, shorten


def whole_number(least: int, most: int, text: str) -> int:
    """Parses a whole number from `least` to `most`, in ASCII digits."""
    known = re.fullmatch("[+-]?[0-9]{1,20}", text.strip()) and least <= int(text) <= most
    _expect(known, f"a whole number from {least} to {most}", text)
    return int(text)


size, index = partial(whole_number, 1, 2**31 - 1), partial(whole_number, 0, 2**31 - 1)


def choice(known: Iterable[str], expected: str, text: str) -> str:
    """Parses a known name."""
    _expect(text in known, expected, text)
    return text


def delimiter(text: str) -> str:
    """Parses the character between the cells of a row."""
    text = {"tab": "\t", "\\t": "\t"}.get(text, text)
    _expect(len(text) == 1 and text not in '"\r\n', "a character or tab", text)
    return text


def columns(text: str) -> list[str]:
    """Parses the columns of a series, by name or by place, separated by commas."""
    names = [column.strip() for column in next(csv.reader([text]), [])]
    _expect(names and all(names) and not {"\n", "\r"} & set(text), "names or places", text)
    return names


def choices(known: tuple[str, ...], text: str) -> list[str]:
    """Parses different known names, separated by commas."""
    names = [name.strip() for name in text.split(",")]
    different = set(names) <= set(known) and len(set(names)) == len(names)
    _expect(different, f"different ones of {', '.join(known)}", text)
    return names


def fraction(text: str) -> float:
    """Parses a number between 0 and 1."""
    inside = NUMBER.fullmatch(text.strip()) and 0 < float(text) < 1
    _expect(inside, "a number between 0 and 1", text)
    return float(text)


def flag(text: str) -> bool:
    """Parses a boolean of settings.json; on the command line it is a switch."""
    return choice(("False", "True"), "true or false", text) == "True"


def path(text: str) -> str:
    """Parses the name of a file or folder."""
    # Bytes that are not UTF-8 are not printable.
    _expect(text and text.isprintable(), "the name of a file", ascii(text)[1:-1])
    return text


def numbers(
    bounds: str, inside: Callable[[float], bool], text: str, *, word: str | None = None
) -> list[float | str]:
    """Parses different finite numbers inside bounds, or a word, separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    known = all(part == word or NUMBER.fullmatch(part) for part in parts)
    values = [part if part == word else float(part) for part in parts] if known else []
    allowed = (isinstance(x, str) or (isfinite(x) and inside(x)) for x in values)
    different = known and all(allowed) and len(set(values)) == len(values)
    _expect(different, f"different numbers {bounds}", text)
    return values


def _expect(good: object, expected: str, text: str) -> None:
    if not good:
        raise ValueError(f"expected {expected}, got {shorten(text)}")
