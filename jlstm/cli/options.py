"""Declares options of the command line, and reads the series that they name."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jlstm._src import files
from jlstm._src.settings import SERIES, Setting


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


def check_memory(arrays: Any) -> None:
    """Refuses a pytree of arrays, or of their shapes, beyond the memory of the machine."""
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise MemoryError(
            f"the arrays take {size / 1e9:.3g} GB, the machine has {memory / 1e9:.3g}"
        )


def read_series(args: argparse.Namespace | Mapping[str, Any]) -> np.ndarray:
    """Reads the series of the options, and prints a note if its first row may hold names."""
    given = args if isinstance(args, Mapping) else vars(args)
    source, *how = (given[name] for name in SERIES)
    note = {"note": lambda text: print(text, file=sys.stderr)}
    return files.read_series(source, **dict(zip(list(SERIES)[1:], how, strict=True)), **note)
