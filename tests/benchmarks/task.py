"""What a peer's process can be asked to do with the arrays it was given."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Compilation(NamedTuple):
    """Of the gradient, from a Python function to a program."""

    seconds: float
    temp_bytes: int


class Task(NamedTuple):
    """`calls[measure]()` computes once, to the end; `results[measure]()` in jlstm's layout."""

    calls: dict[str, Callable[[], Any]]
    results: dict[str, Callable[[], dict[str, np.ndarray]]]
    compile: Callable[[], Compilation] | None
