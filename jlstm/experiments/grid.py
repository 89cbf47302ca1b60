"""Grids: every combination of hyperparameters and seeds, as one axis of runs."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm._src.checks import check, check_size
from jlstm.experiments.training import Hyperparams

CHRONO = "chrono"  # among forget biases


class Grid(NamedTuple):
    """R runs: all seeds of the first combination, then all seeds of the second, and so on.

    hyperparams: each leaf `[R]`.
    keys: `[R]`; runs with the same seed have the same key, and so the same batches.
    rows: for each run a dict of its choices by name and its seed.
    """

    hyperparams: Hyperparams
    keys: jax.Array
    rows: list[dict[str, Any]]


def grid(seeds: int, choices: Mapping[str, Sequence[Any]] | None = None) -> Grid:
    """Combines all choices with each of the seeds 0, 1, ….

    Args:
      seeds: the number of seeds.
      choices: the values to try, by field of `Hyperparams`; other fields keep their defaults. The
        value "chrono" of `forget_bias` sets the field `chrono`.

    Raises:
      TypeError, ValueError: a field is unknown, has no values, or has values that are not numbers.

    >>> runs = grid(2, {"learning_rate": [1e-3, 3e-3], "forget_bias": [1, "chrono"]})
    >>> runs.hyperparams.chrono
    Array([False, False,  True,  True, False, False,  True,  True], dtype=bool)
    >>> runs.rows[3]
    {'learning_rate': 0.001, 'forget_bias': 'chrono', 'seed': 1}
    """
    check_size("seeds", seeds)
    choices = dict(choices or {})
    fields = [name for name in Hyperparams._fields if name != CHRONO]
    for name, values in choices.items():
        if name not in fields:
            raise ValueError(f"choices: expected fields {', '.join(fields)}, got {name!r}")
        listed = isinstance(values, Sequence) and not isinstance(values, str) and values
        check(listed, name, "a list of values", values, TypeError)
        for value in values:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            right = number or (name == "forget_bias" and value == CHRONO)
            check(right, name, "numbers", value, TypeError)
    axes = {**choices, "seed": range(seeds)}
    rows = [dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values())]
    columns: dict[str, Any] = {}
    for name in fields:
        values = [row.get(name, Hyperparams._field_defaults[name]) for row in rows]
        if None not in values:
            numbers = [0.0 if value == CHRONO else float(value) for value in values]
            columns[name] = jnp.array(numbers, jnp.float32)
    chrono = jnp.array([row.get("forget_bias") == CHRONO for row in rows])
    keys = jax.vmap(jax.random.key)(jnp.array([row["seed"] for row in rows], jnp.uint32))
    return Grid(Hyperparams(**columns, chrono=chrono), keys, rows)
