"""What `jlstm train` writes, draws and prints of finished runs, setting by setting."""

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jlstm._src.files import Writer

NUMBERS = ("learning_rate", "forget_bias", "clip_norm", "dropout")
VARIED = ("cell", *NUMBERS)
FIXED = ("task", "length", "input", "hidden_size", "layers", "batch_size", "steps", "optimizer")


def one_after_another(finished: Mapping[str, Any]):
    """The runs of all cells as one `jlstm.experiments.Run`; models stay apart, by their cell."""
    models = {cell: runs.model for cell, runs in finished.items()}
    numbers = [runs._replace(model=None) for runs in finished.values()]
    together = jax.tree.map(lambda *arrays: np.concatenate(arrays), *numbers)
    return together._replace(model=models if len(models) > 1 else models.popitem()[1])


def tables(chosen: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], runs) -> dict[str, Writer]:
    """The files of numbers: a tidy table twice, the curves, the parameters.

    Args:
      chosen: all settings by name.
      rows: what was chosen for each of R runs.
      runs: `jlstm.experiments.Run` with an axis `[R]`.
    """
    fixed = {name: chosen[name] for name in FIXED}
    # As text a float32 is as short as it can be: 0.1, not 0.10000000149011612.
    outcomes = [
        {
            "solved_at": None if solved_at < 0 else int(solved_at),
            "loss": float(str(loss)),
            "metric": float(str(metric)),
        }
        for solved_at, loss, metric in zip(*_arrays(runs), strict=True)
    ]
    table = [{**fixed, **row, **outcome} for row, outcome in zip(rows, outcomes, strict=True)]
    return {
        "results.csv": csv_writer(table),
        "results.jsonl": jsonl_writer(table),
        "curves.npz": arrays_writer(runs.curves),
        "params.npz": arrays_writer(runs.model),
    }


def pictures(chosen: Mapping[str, Any], task, runs) -> dict[str, Writer]:
    """Learning curves, and a heat map of success where there is more than one setting.

    Each of several cells has a panel of curves, and a row of the map, or one for each combination
    of what varies but for the last of the numbers.
    """
    from jlstm import plots

    losses, solved_at = (_by_setting(chosen, a) for a in (runs.curves.loss, runs.solved_at))
    cells, names = chosen["cell"], [label or task.name for label in _labels(chosen, NUMBERS)]
    if len(cells) > 1:
        panels = zip(cells, np.split(losses, len(cells)), strict=True)
        curves = plots.plot_panels(
            {cell: dict(zip(names, panel, strict=True)) for cell, panel in panels},
            baseline=task.baseline,
        )
    else:
        curves = plots.plot_training(
            dict(zip(names, losses, strict=True)),
            dict(zip(names, solved_at, strict=True)),
            baseline=task.baseline,
        )
    figures = {"curves.png": curves}
    if len(losses) > 1:
        last = [name for name in NUMBERS if len(chosen[name] or ()) > 1][-1:]
        most = [name for name in VARIED if name not in last]
        rows, columns = (
            [label or task.name for label in _labels(chosen, some)] for some in (most, last)
        )
        rates = (solved_at >= 0).mean(axis=1).reshape(len(rows), len(columns))
        figures["success.png"] = plots.plot_success(rates, rows, columns, seeds=chosen["seeds"])
    return {name: partial(figure.savefig, format="png") for name, figure in figures.items()}


def print_summary(chosen: Mapping[str, Any], task, runs) -> None:
    """Prints a line a setting."""
    print(f"{task.name}: solved is {task.criterion}")
    print(f"metric: {task.metric_name}; loss of the trivial answer: {task.baseline:.4g}")
    columns = (_by_setting(chosen, array) for array in _arrays(runs))
    for label, solved_at, losses, metrics in zip(_labels(chosen, VARIED), *columns, strict=True):
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


def _arrays(runs):
    return (np.asarray(array) for array in (runs.solved_at, runs.loss, runs.metric))


def _by_setting(chosen, array):
    """`[R, …]` as `[G, S, …]`: a row a setting, in the order of `_labels`."""
    array = np.asarray(array)
    return array.reshape(-1, chosen["seeds"], *array.shape[1:])


def _labels(chosen, names):
    """What each combination of settings is called by those that vary; the last runs fastest."""
    varied = [name for name in names if len(chosen[name] or ()) > 1]
    return [
        ", ".join(
            f"{name.replace('_', ' ')} {value if isinstance(value, str) else f'{value:g}'}"
            for name, value in zip(varied, values, strict=True)
        )
        for values in itertools.product(*(chosen[name] for name in varied))
    ]


# --- files


def csv_writer(rows: Sequence[Mapping[str, Any]]) -> Writer:
    """Writes rows of equal columns under a header; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return lambda file: file.write(text.getvalue().encode())


def jsonl_writer(rows: Sequence[Mapping[str, Any]]) -> Writer:
    """Writes a JSON object a line; numbers that are not finite, which JSON lacks, as null."""

    def known(value):
        return None if isinstance(value, float) and not np.isfinite(value) else value

    lines = [json.dumps({name: known(value) for name, value in row.items()}) for row in rows]
    return lambda file: file.write(("\n".join(lines) + "\n").encode())


def json_writer(values: Mapping[str, Any]) -> Writer:
    """Writes one JSON object, a field a line."""
    return lambda file: file.write((json.dumps(values, indent=2) + "\n").encode())


def arrays_writer(tree: Any) -> Writer:
    """Writes the arrays of a pytree to a .npz file, each by its path: `layers[0].W`.

    In a dict the path begins with the name: `gru.layers[0].W`.
    """
    trees = {f"{name}.": branch for name, branch in tree.items()} if isinstance(tree, dict) else {}
    arrays: dict[str, Any] = {}
    for name, branch in (trees or {"": tree}).items():
        leaves, _ = jax.tree_util.tree_flatten_with_path(branch)
        for path, leaf in leaves:
            arrays[name + jax.tree_util.keystr(path).lstrip(".")] = np.asarray(leaf)
    return lambda file: np.savez(file, **arrays)
