"""The results of commands: tables, plots, and the summary of `jlstm train` by setting."""

import itertools
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jlstm._src.files import Writer, csv_writer

NUMBERS = ("learning_rate", "forget_bias", "clip_norm", "dropout")
VARIED = ("cell", *NUMBERS)
FIXED = ("task", "length", "input", "hidden_size", "layers", "batch_size", "steps", "optimizer")
SHOWN, HEAD = 100, 10  # a table of more rows is cut to its head and tail


def print_rows(rows: int, name: str, line: Callable[[int], str]) -> None:
    """Prints the line of each row; of a long table, the first and the last rows."""
    for row in range(rows):
        if rows <= SHOWN or not HEAD <= row < rows - HEAD:
            print(line(row))
        elif row == HEAD:
            print(f"... ({rows - 2 * HEAD} of {rows} {name} are not shown; --save FILE keeps all)")


def one_after_another(finished: Mapping[str, Any]):
    """Joins the runs of all cells in one `Run` of NumPy arrays, with the models by cell."""
    models = OrderedDict((cell, runs.model) for cell, runs in finished.items())
    numbers = [runs._replace(model=None) for runs in finished.values()]
    together = jax.tree.map(lambda *arrays: np.concatenate(arrays), *numbers)
    return together._replace(model=models if len(models) > 1 else models.popitem()[1])


def tables(chosen: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], runs) -> dict[str, Writer]:
    """Makes the files of numbers: a tidy table in two formats, the curves, the parameters.

    `rows` has the choices of each of R runs; `runs` is from `one_after_another`.
    """
    fixed, table = {name: chosen[name] for name in FIXED}, []
    for row, solved_at, loss, metric in zip(rows, *runs[2:], strict=True):
        # The text of a float32 is its shortest form: 0.1, not 0.10000000149011612.
        numbers = {"loss": float(str(loss)), "metric": float(str(metric))}
        solved = {"solved_at": None if solved_at < 0 else int(solved_at)}
        table.append({**fixed, **row, **solved, **numbers})
    return {
        "results.csv": csv_writer(table[0], (row.values() for row in table)),
        "results.jsonl": jsonl_writer(table),
        "curves.npz": arrays_writer(runs.curves),
        "params.npz": arrays_writer(runs.model),
    }


def pictures(chosen: Mapping[str, Any], task, runs) -> dict[str, Writer]:
    """Plots learning curves, in panels for several cells, and a heat map of success if any vary.

    The last varied number makes the columns of the map; all other combinations make the rows.
    """
    from jlstm import plots

    losses, solved_at = (_by_setting(chosen, a) for a in (runs.curves.loss, runs.solved_at))
    cells, labels = chosen["cell"], _labels(chosen, NUMBERS, task.name)

    def named(arrays):
        return dict(zip(labels, arrays, strict=True))

    if len(cells) > 1:
        panels = zip(cells, map(named, np.split(losses, len(cells))), strict=True)
        curves = plots.plot_panels(dict(panels), baseline=task.baseline)
    else:
        curves = plots.plot_training(named(losses), named(solved_at), baseline=task.baseline)
    figures = {"curves.png": curves}
    if len(losses) > 1:
        last = [name for name in NUMBERS if len(chosen[name] or ()) > 1][-1:]
        most = [name for name in VARIED if name not in last]
        rows, columns = (_labels(chosen, some, task.name) for some in (most, last))
        rates = (solved_at >= 0).mean(axis=1).reshape(len(rows), len(columns))
        figures["success.png"] = plots.plot_success(rates, rows, columns, seeds=chosen["seeds"])
    return {name: partial(figure.savefig, format="png") for name, figure in figures.items()}


def print_summary(chosen: Mapping[str, Any], task, runs) -> None:
    """Prints a line for each setting."""
    print(f"{task.name}: solved is {task.criterion}")
    print(f"metric: {task.metric_name}; loss of the trivial answer: {task.baseline:.4g}")
    columns = (_by_setting(chosen, array) for array in runs[2:])
    labels = _labels(chosen, VARIED)
    for label, solved_at, losses, metrics in zip(labels, *columns, strict=True):
        solved = solved_at[solved_at >= 0]
        line = f"{label}: " * bool(label) + f"{len(solved)} of {len(solved_at)} seeds solved"
        if len(solved):
            line += f", at step {np.median(solved):.0f} ({solved.min()} to {solved.max()})"
        line += f"; loss {_median_and_range(losses)}; metric {_median_and_range(metrics)}"
        print(line)


def _median_and_range(values):
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{np.median(values):.4g} ({values.min():.4g} to {values.max():.4g})"


def _by_setting(chosen, array):
    """Reshapes `[R, …]` to `[G, S, …]`, settings in the order of `_labels` and their seeds."""
    return array.reshape(-1, chosen["seeds"], *array.shape[1:])


def _labels(chosen, names, only=""):
    """Names each combination of settings by those that vary, or `only` if nothing varies."""
    axes = [
        [f"{name.replace('_', ' ')} {v if isinstance(v, str) else f'{v:g}'}" for v in chosen[name]]
        for name in names
        if len(chosen[name] or ()) > 1
    ]
    return [", ".join(combination) or only for combination in itertools.product(*axes)]


def jsonl_writer(rows: Sequence[Mapping[str, Any]]) -> Writer:
    """Writes a JSON object a line; numbers that are not finite become null."""

    def known(value):
        return None if isinstance(value, float) and not np.isfinite(value) else value

    lines = [json.dumps({name: known(value) for name, value in row.items()}) for row in rows]
    return lambda file: file.write(("\n".join(lines) + "\n").encode())


def json_writer(values: Mapping[str, Any]) -> Writer:
    """Writes one JSON object, a field a line."""
    return lambda file: file.write((json.dumps(values, indent=2) + "\n").encode())


def arrays_writer(tree: Any) -> Writer:
    """Writes the arrays of a pytree to a .npz file, each by its path: `gru.layers[0].W`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [re.sub(r"\['|'\]|^\.", "", jax.tree_util.keystr(path)) for path, _ in leaves]
    arrays: Any = {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}
    return lambda file: np.savez(file, **arrays)
