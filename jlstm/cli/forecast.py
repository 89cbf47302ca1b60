"""`jlstm forecast`: forecasts a series with the runs in a folder of `jlstm train`."""

import argparse
import sys
from typing import Any

import jax
import numpy as np

from jlstm._src import texts
from jlstm._src.modules import require
from jlstm._src.settings import SERIES
from jlstm.cli import options, outcomes

HELP = "forecast a series with trained runs"
DESCRIPTION = """Forecasts the next K steps of a series, each from the forecasts before it, by
the seeds of the setting in DIR whose validation loss is smallest. low and high are
the 10% and 90% quantiles over seeds, which show how much the seeds differ."""
EXAMPLE = "jlstm forecast co2 --horizon 24 --plot forecast.png"

STARTS = 50  # the largest number of starts for the errors
BAND = (0.1, 0.9)  # quantiles over seeds
ENDINGS = {"save": (".npz", ".csv"), "plot": (".png",)}


def add(parser) -> None:
    """Declares the options."""
    parser.add_argument("folder", metavar="DIR", help="a folder of `jlstm train --task forecast`")
    options.add_settings(parser, SERIES, input="the series to continue (the one in DIR)")
    options.add(parser, "--horizon", texts.size, "K", "steps to forecast (10)", default=10)
    save = "the table and all seeds: .npz, or the table: .csv"
    options.add_files(parser, save=save, plot="a plot of the forecasts: .png")


def run(args: argparse.Namespace) -> None:
    """Checks everything, computes the forecasts, writes the files, prints the tables."""
    require("experiments", "optax", "orbax.checkpoint")
    options.check_files(args, ENDINGS)
    from jlstm.experiments import runs
    from jlstm.experiments.tasks.forecast import methods_for

    saved = runs.read_settings(args.folder)
    known = runs.read_series(args.folder, saved)
    if known is None:
        raise ValueError(f"{args.folder}: expected runs of the task forecast, got {saved['task']}")
    trained = runs.best_runs(args.folder)
    methods = methods_for(known, trained.task.warmup, saved["period"])
    series = _read_series(args, saved, known, trained.task.scaling)
    names = args.columns or saved["columns"] or [f"x{d}" for d in range(series.shape[1])]

    forecasts = _free_runs(trained, series[None], args.horizon)[:, 0]
    others = {name: _iterate(f, series[None], args.horizon)[0] for name, f in methods.items()}
    low, high = np.quantile(forecasts, BAND, axis=0)
    parts = {"median": np.median(forecasts, axis=0), "low": low, "high": high, **others}
    table = {"step": 1 + np.arange(args.horizon)}
    for d, name in enumerate(names):
        prefix = f"{name} " if len(names) > 1 else ""
        table |= {f"{prefix}{part}": values[:, d] for part, values in parts.items()}

    def draw():
        from jlstm import plots

        return plots.plot_forecast(series, forecasts, names=names, others=others)

    outcomes.write(args, table, {"forecasts": forecasts, **parts}, draw)
    seeds = "1 seed" if len(forecasts) == 1 else f"{len(forecasts)} seeds"
    title = f"Forecasts by {seeds} of {trained.row[0]['cell']}, in the units of the series"
    outcomes.print_table(title, table)
    _print_errors(trained, methods, known, args.horizon, names)


def _read_series(args, saved, known, scaling) -> np.ndarray:
    options.check_needs(vars(args), "input", *SERIES)
    if args.input is None:
        return _whole_end("the series", known)
    series = options.read_series({**vars(args), "columns": args.columns or saved["columns"]})
    D, least = known.shape[1], len(known) * 3 // 10  # for any period and window
    where = f"argument --input: {args.input}"
    if series.shape[1] != D:
        expected = f"expected {D} columns as in {args.folder}"
        raise ValueError(f"{where}: {expected}, got {series.shape[1]}")
    if len(series) < least:
        raise ValueError(f"{where}: expected {least} rows or more, got {len(series)}")
    _note_range(args.input, known[: len(known) * 3 // 5], series, scaling.difference)
    return _whole_end(args.input, series)


def _whole_end(source: str, series: np.ndarray) -> np.ndarray:
    if not np.isfinite(series[-1]).all():
        raise ValueError(f"{source}: expected a last row without missing cells")
    return series


def _note_range(source: str, training: np.ndarray, series: np.ndarray, difference: bool) -> None:
    """Notes columns whose values, or differences, leave the range of the training part."""
    if difference:
        training, series = np.diff(training, axis=0), np.diff(series, axis=0)
    for d, (old, new) in enumerate(zip(training.T, series.T, strict=True)):
        (low, least), (high, most) = ((f(old), f(new)) for f in (np.nanmin, np.nanmax))
        margin = 0.01 * (high - low)
        if least < low - margin or most > high + margin:
            found = f"column {d} reaches from {least:g} to {most:g}"
            known = f"the runs trained on {low:g} to {high:g}"
            print(f"{source}: {found}, {known}", file=sys.stderr)


def _free_runs(trained, pasts: np.ndarray, K: int) -> np.ndarray:
    """Forecasts K steps after each of N series `[N, T, D]` by S seeds: `[S, N, K, D]`."""
    from jlstm.experiments import free_run

    def one(model, past):
        return free_run(model, trained.task.scaling, past, K, cell=trained.cell)

    both: Any = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return np.asarray(jax.jit(both)(trained.best, pasts.astype(np.float32)), np.float64)


def _iterate(method, pasts: np.ndarray, K: int) -> np.ndarray:
    """Forecasts K steps by a simple method, each from the forecasts before it: `[N, K, D]`."""
    for _ in range(K):
        pasts = np.concatenate([pasts, method(pasts)[:, None]], axis=1)
    return pasts[:, -K:]


def _print_errors(trained, methods, known, K, names) -> None:
    """Prints the errors of K steps from starts in the test part, and the coverage of the band."""
    begin, end, width = len(known) * 4 // 5, len(known) - K, len(known) * 3 // 5
    if end < begin:
        print("\nThe test part is shorter than the horizon, so no error is shown.")
        return
    starts = np.unique(np.linspace(begin, end, STARTS).astype(int))
    starts = starts[np.isfinite(known[starts - 1]).all(axis=1)]
    pasts = np.stack([known[start - width : start] for start in starts])
    actual = np.stack([known[start : start + K] for start in starts])
    forecasts = _free_runs(trained, pasts, K)
    found = {"median of seeds": np.median(forecasts, axis=0)}
    found |= {name: _iterate(method, pasts, K) for name, method in methods.items()}
    errors = [np.sqrt(np.nanmean((f - actual) ** 2, axis=(0, 1))) for f in found.values()]
    table = {"method": list(found), **dict(zip(names, np.transpose(errors), strict=True))}
    errors_of = f"Root mean squared errors of {K} steps"
    outcomes.print_table(f"\n{errors_of} from {len(starts)} starts in the test part", table)
    low, high = np.quantile(forecasts, BAND, axis=0)
    covered = ((actual >= low) & (actual <= high))[np.isfinite(actual)].mean()
    print(f"\nlow to high covers {covered:.0%} of these values")
