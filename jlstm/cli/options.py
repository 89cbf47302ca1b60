"""The types of the command line's options: each reads a text, or refuses it in one line."""

import argparse
import contextlib
import csv
from math import inf, isfinite, nan

from jlstm._src import files


def whole_number(least: int, most: int, text: str) -> int:
    """A whole number from `least` to `most`."""
    with contextlib.suppress(ValueError):
        if least <= int(text) <= most:
            return int(text)
    raise argparse.ArgumentTypeError(
        f"expected a whole number from {least} to {most}, got {text!r}"
    )


def dtype(text: str) -> str:
    """The name of a floating type."""
    if text not in files.FLOATS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(files.FLOATS)}, got {text!r}")
    return text


def columns(text: str) -> list[str]:
    """The columns of a series, by name or by place, with commas between them."""
    names = [column.strip() for column in next(csv.reader([text]), [])]
    if not all(names) or not names:
        raise argparse.ArgumentTypeError(f"expected names or places, got {text!r}")
    return names


def choices(known: tuple[str, ...], text: str) -> list[str]:
    """Different ones of the known names, with commas between them."""
    names = [name.strip() for name in text.split(",")]
    if set(names) <= set(known) and len(set(names)) == len(names):
        return names
    raise argparse.ArgumentTypeError(f"expected different ones of {', '.join(known)}, got {text!r}")


def path(text: str) -> str:
    """The name of a file or folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a file, got ''")
    return text


def numbers(
    text: str,
    *,
    above: float = -inf,
    least: float = -inf,
    below: float = inf,
    words: tuple[str, ...] = (),
) -> list[float | str]:
    """Different finite numbers within bounds, or words instead, with commas between them."""
    values = [_number_or_word(part.strip(), words) for part in text.split(",")]
    inside = [isinstance(v, str) or (v > above and least <= v < below) for v in values]
    if all(inside) and len(set(values)) == len(values):
        return values
    bounds = [f" above {above:g}"] * isfinite(above) + [f" from {least:g}"] * isfinite(least)
    bounds += [f" below {below:g}"] * isfinite(below) + [f" or {word}" for word in words]
    expected = f"different numbers{''.join(bounds)}"
    raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")


def _number_or_word(text: str, words: tuple[str, ...]) -> float | str:
    """NaN, which is within no bounds, for what is neither."""
    if text in words:
        return text
    try:
        return float(text) if isfinite(float(text)) else nan
    except ValueError:
        return nan
