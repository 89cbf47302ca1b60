"""The types of the command line's options: each parses a text, or refuses it in one line."""

import argparse
import contextlib
import csv
from math import inf, isfinite, nan

from jlstm._src import files


def whole_number(least: int, most: int, text: str) -> int:
    """Parses a whole number from `least` to `most`."""
    with contextlib.suppress(ValueError):
        if least <= int(text) <= most:
            return int(text)
    raise _refusal(f"a whole number from {least} to {most}", text)


def dtype(text: str) -> str:
    """Parses the name of a floating type."""
    if text not in files.FLOATS:
        raise _refusal(f"one of {', '.join(files.FLOATS)}", text)
    return text


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


def path(text: str) -> str:
    """Parses the name of a file or folder."""
    if not text:
        raise _refusal("the name of a file", text)
    return text


def numbers(
    text: str,
    *,
    above: float = -inf,
    least: float = -inf,
    below: float = inf,
    words: tuple[str, ...] = (),
) -> list[float | str]:
    """Parses different finite numbers within bounds, or some of the words, separated by commas."""
    values = [_number_or_word(part.strip(), words) for part in text.split(",")]
    inside = [isinstance(v, str) or (v > above and least <= v < below) for v in values]
    if all(inside) and len(set(values)) == len(values):
        return values
    bounds = [f" above {above:g}"] * isfinite(above) + [f" from {least:g}"] * isfinite(least)
    bounds += [f" below {below:g}"] * isfinite(below) + [f" or {word}" for word in words]
    raise _refusal(f"different numbers{''.join(bounds)}", text)


def _number_or_word(text: str, words: tuple[str, ...]) -> float | str:
    """Returns NaN, which is outside all bounds, for other text."""
    with contextlib.suppress(ValueError):
        return text if text in words else float(text) if isfinite(float(text)) else nan
    return nan


def _refusal(expected: str, text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
