"""Results of commands: printed tables, and the files and the summary of `jlstm train`."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jlstm._src.files import Writer, atomic_write, csv_writer, table_writer
from jlstm._src.settings import NUMBERS, TASK

VARIED = ("cell", *NUMBERS)
FIXED = (*TASK, "input", "difference", "hidden_size", "layers", "batch_size", "steps", "optimizer")
SHOWN, HEAD = 100, 10  # a table of more rows is cut to its head and tail


def print_rows(rows: int, name: str, line: Callable[[int], str]) -> None:
    """Prints the line of each row, or of the first and last rows of a long table."""
    for row in range(rows):
        if rows <= SHOWN or not HEAD <= row < rows - HEAD:
            print(line(row))
        elif row == HEAD:
            print(f"... ({rows - 2 * HEAD} of {rows} {name} are not shown; --save FILE keeps all)")


def print_table(title: str, table: Mapping[str, Sequence[Any]]) -> None:
    """Prints a table, given by column; columns of text are aligned on the left."""
    widths = {name: max(11, len(name) + 2) for name in table}
    widths |= {name: max(map(len, t)) for name, t in table.items() if isinstance(t[0], str)}
    print(f"{title}\n")
    head = (f"{n:<{w}}" if isinstance(table[n][0], str) else f"{n:>{w}}" for n, w in widths.items())
    print("".join(head).rstrip())

    def line(row):
        cells = ((column[row], widths[name]) for name, column in table.items())
        return "".join(f"{x:<{w}}" if isinstance(x, str) else f"{x:>{w}.4g}" for x, w in cells)

    print_rows(len(next(iter(table.values()))), "rows", line)


def write(args, table: Mapping[str, Any], arrays: Mapping[str, Any], draw: Callable) -> None:
    """Writes the files of --save and --plot, all of them or none."""
    writers: dict[str, Writer] = {}
    if args.save:
        writers[args.save] = table_writer(args.save, table, arrays)
    if args.plot:
        writers[args.plot] = png_writer(draw())
    atomic_write(writers)


def one_after_another(finished: Mapping[str, Any]):
    """Joins the runs of all cells in one `Run` of NumPy arrays, without the models."""
    each = (r._replace(last=None, best=r.best._replace(model=None)) for r in finished.values())
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *each)


def tables(
    chosen: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], finished: Mapping[str, Any], runs
) -> dict[str, Writer]:
    """Makes the files of numbers: a table in two formats, the curves, the parameters.

    `rows` has the choices of each run, `finished` the runs by cell, and `runs` all of them from
    `one_after_another`.
    """
    from jlstm.experiments.runs import arrays_writer

    fixed, table = {name: chosen[name] for name in FIXED}, []
    scores = {"validation_loss": runs.best.loss, **runs.test._asdict()}
    for k, row in enumerate(rows):
        solved = int(runs.solved_at[k])
        found = {"solved_at": None if solved < 0 else solved, "best_step": int(runs.best.step[k])}
        # The shortest number for a float32: 0.1, not 0.10000000149011612.
        found |= {name: float(str(score[k])) for name, score in scores.items()}
        table.append({**fixed, **row, **found})
    models = {cell: {"best": run.best.model, "last": run.last} for cell, run in finished.items()}
    return {
        "results.csv": csv_writer(table[0], (row.values() for row in table)),
        "results.jsonl": jsonl_writer(table),
        "curves.npz": arrays_writer(runs.curves),
        "params.npz": arrays_writer(models),
    }


def pictures(chosen: Mapping[str, Any], task, runs) -> dict[str, Writer]:
    """Plots learning curves, in panels for several cells, and a heat map of success.

    The last varied number makes the columns of the map; all other combinations make the rows.
    """
    from jlstm import plots

    losses, solved_at = (_by_setting(chosen, a) for a in (runs.curves.loss, runs.solved_at))
    cells, labels = chosen["cell"], _labels(chosen, NUMBERS, task.name)

    def named(arrays):
        return dict(zip(labels, arrays, strict=True))

    if len(cells) > 1:
        panels = dict(zip(cells, map(named, np.split(losses, len(cells))), strict=True))
        curves = plots.plot_panels(panels, baseline=task.baseline)
    else:
        curves = plots.plot_training(named(losses), named(solved_at), baseline=task.baseline)
    last = [name for name in NUMBERS if len(chosen[name] or ()) > 1][-1:]
    most = [name for name in VARIED if name not in last]
    rows, columns = (_labels(chosen, some, task.name) for some in (most, last))
    rates = (solved_at >= 0).mean(axis=1).reshape(len(rows), len(columns))
    success = plots.plot_success(rates, rows, columns, seeds=chosen["seeds"])
    return {"curves.png": png_writer(curves), "success.png": png_writer(success)}


def png_writer(figure) -> Writer:
    """Makes a writer of a matplotlib figure."""
    return partial(figure.savefig, format="png")


def print_summary(chosen: Mapping[str, Any], task, runs) -> None:
    """Prints a line for each setting, and the test of the setting that validation chooses."""
    print(f"{task.name}: solved is {task.criterion}")
    solved_at, validations, losses, metrics, cold = (
        _by_setting(chosen, array) for array in (runs.solved_at, runs.best.loss, *runs.test)
    )
    labels = _labels(chosen, VARIED)
    for label, solved, validation in zip(labels, solved_at, validations, strict=True):
        found = solved[solved >= 0]
        line = f"{label}: " * bool(label) + f"{len(found)} of {len(solved)} seeds solved"
        if len(found):
            line += f", at step {np.median(found):.0f} ({found.min()} to {found.max()})"
        print(f"{line}; validation loss {_median_and_range(validation)}")
    for name, (validation, test) in task.baselines.items():
        print(f"{name}: validation loss {validation:.4g}, test loss {test:.4g}")
    best = int(np.argmin(np.median(np.nan_to_num(validations, nan=np.inf), axis=1)))
    line = f"test of {labels[best] or 'the best step'}, chosen by validation: "
    line += f"loss {_median_and_range(losses[best])} (trivial answer {task.baseline:.4g})"
    line += f"; {task.metric_name} {_median_and_range(metrics[best])}"
    line += f"; without warm-up {_median_and_range(cold[best])}" * bool(task.warmup)
    print(line)


def _median_and_range(values):
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{np.median(values):.4g} ({values.min():.4g} to {values.max():.4g})"


def _by_setting(chosen, array):
    """Reshapes `[R, …]` to `[G, S, …]`: settings in the order of `_labels`, and their seeds."""
    return array.reshape(-1, chosen["seeds"], *array.shape[1:])


def _labels(chosen, names, only=""):
    """Names each combination of settings by those that vary; `only` is the name if none does."""
    axes = [
        [f"{name.replace('_', ' ')} {v if isinstance(v, str) else f'{v:g}'}" for v in chosen[name]]
        for name in names
        if len(chosen[name] or ()) > 1
    ]
    return [", ".join(combination) or only for combination in itertools.product(*axes)]


def jsonl_writer(rows: Sequence[Mapping[str, Any]]) -> Writer:
    """Makes a writer of a JSON object a line; numbers that are not finite become null."""

    def known(value):
        return None if isinstance(value, float) and not np.isfinite(value) else value

    lines = [json.dumps({name: known(value) for name, value in row.items()}) for row in rows]
    return lambda file: file.write(("\n".join(lines) + "\n").encode())


def json_writer(values: Mapping[str, Any]) -> Writer:
    """Makes a writer of one JSON object, a field a line."""
    return lambda file: file.write((json.dumps(values, indent=2) + "\n").encode())
