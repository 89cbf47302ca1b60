"""Options of the command line: their declaration, their checks, and the series that they name."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from jlstm._src import files, texts
from jlstm._src.modules import require
from jlstm._src.settings import Setting


def add(group, option: str, parse: Callable, metavar: str | None, what: str, **more) -> None:
    """Declares an option with a value, or a switch for the parser of a flag."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:  # argparse would replace its message
            raise argparse.ArgumentTypeError(str(error)) from None

    group.add_argument(option, type=parsed, metavar=metavar, help=what, **more)


def add_settings(group, settings: Mapping[str, Setting], **what: str) -> None:
    """Declares the options of settings; those without a metavar are switches."""
    for name, setting in settings.items():
        option, text = f"--{name.replace('_', '-')}", what.get(name, setting.what)
        if setting.metavar:
            add(group, option, setting.parse, setting.metavar, text)
        else:
            group.add_argument(option, action=argparse.BooleanOptionalAction, help=text)


def add_files(parser, **what: str) -> None:
    """Declares the options of the files that a command writes."""
    group = parser.add_argument_group("output", "Files are written completely or not at all.")
    for name, text in what.items():
        add(group, f"--{name.replace('_', '-')}", texts.path, "FILE", text)


def check_files(args: argparse.Namespace, endings: Mapping[str, tuple[str, ...]]) -> None:
    """Checks that the files of these options can be written, and that a picture can be drawn."""
    for option, allowed in endings.items():
        if path := getattr(args, option.replace("-", "_")):
            files.check_writable(path, *allowed)
    if args.plot:
        require("plots", "matplotlib")


def check_needs(given: Mapping[str, Any], needed: str, *names: str) -> None:
    """Checks that options which need another one are not given without it."""
    for name in names:
        if given.get(name) is not None and given.get(needed) is None:
            raise ValueError(f"argument --{name}: needs --{needed}")


def check_memory(arrays: Any) -> None:
    """Checks that a pytree of arrays, or of their shapes, fits into the memory of the machine."""
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise MemoryError(f"arrays of {size / 1e9:.3g} GB, the machine has {memory / 1e9:.3g} GB")


def read_series(given: Mapping[str, Any]) -> np.ndarray:
    """Reads the series of the options, and prints a note if its first row may hold names."""
    form = {name: given[name] for name in ("columns", "header", "delimiter")}
    form["missing"] = given["missing"] is not None
    return files.read_series(given["input"], note=partial(print, file=sys.stderr), **form)
