"""The types of the command line's options: each reads a text, or refuses it in one line."""

import argparse
import contextlib
import csv

from jlstm import files


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


def path(text: str) -> str:
    """The name of a file or folder."""
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a file, got ''")
    return text
