"""`jlstm forecast`: forecasts a series by the runs of a folder of `jlstm train`."""

import argparse
import sys
from functools import partial
from typing import Any

import jax
import numpy as np

from jlstm._src import files, texts
from jlstm._src.modules import require
from jlstm._src.settings import SERIES
from jlstm.cli import options
from jlstm.cli.outcomes import print_table, table_writer

STARTS = 50  # the most from which the error is measured
BAND = (0.1, 0.9)  # quantiles over seeds


def add(commands) -> None:
    """Declares the command and its options."""
    parser = commands.add_parser(
        "forecast",
        help="forecast a series with trained runs",
        description="Forecasts the next K steps of a series, each from the forecasts before it,\n"
        "by the seeds of the setting in DIR whose validation loss is smallest. low and high are\n"
        "the 10% and 90% quantiles over seeds, which show how much the seeds differ.",
        epilog="example:\n  jlstm forecast co2 --horizon 24 --plot forecast.png",
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", metavar="DIR", help="a folder of `jlstm train --task forecast`")
    options.add_settings(parser, SERIES, input="the series to continue (the one in DIR)")
    add = partial(options.add, parser)
    add("--horizon", texts.size, "K", "steps to forecast (10)", default=10)
    add("--save", texts.path, "FILE", "the table and all seeds: .npz, or the table: .csv")
    add("--plot", texts.path, "FILE", "a picture: .png")


def run(args: argparse.Namespace) -> None:
    """Checks everything, computes the forecasts, writes the files, prints the tables."""
    require("experiments", "optax", "orbax.checkpoint")
    if args.plot:
        require("plots", "matplotlib")
    for option, endings in {"save": (".npz", ".csv"), "plot": (".png",)}.items():
        if path := getattr(args, option):
            files.check_writable(path, *endings)
    from jlstm.experiments import runs as folders
    from jlstm.experiments.tasks.forecast import methods_for

    saved = folders.read_settings(args.folder)
    known = folders.read_series(args.folder, saved)
    if known is None:
        raise ValueError(f"{args.folder}: expected runs of the task forecast, got {saved['task']}")
    trained = folders.best_runs(args.folder)
    window, K = trained.task.warmup, args.horizon
    methods = methods_for(known, window, saved["period"])
    series = _read_series(args, saved, known, trained.task.scaling)
    names = args.columns or saved["columns"] or [f"x{d}" for d in range(series.shape[1])]

    forecasts = _free_runs(trained, series[None], K)[:, 0]
    others = {name: _iterate(method, series[None], K)[0] for name, method in methods.items()}
    low, high = np.quantile(forecasts, BAND, axis=0)
    parts = {"median": np.median(forecasts, axis=0), "low": low, "high": high, **others}
    prefixes = [f"{name} " if len(names) > 1 else "" for name in names]
    table = {"step": 1 + np.arange(K)}
    table |= {
        f"{prefix}{part}": parts[part][:, d] for d, prefix in enumerate(prefixes) for part in parts
    }
    writers: dict[str, files.Writer] = {}
    if args.save:
        writers[args.save] = table_writer(args.save, table, {"forecasts": forecasts, **parts})
    if args.plot:
        from jlstm import plots

        figure = plots.plot_forecast(series, forecasts, names=names, others=others)
        writers[args.plot] = partial(figure.savefig, format="png")
    files.atomic_write(writers)
    seeds = "1 seed" if len(forecasts) == 1 else f"{len(forecasts)} seeds"
    print_table(
        f"Forecasts by {seeds} of {trained.row[0]['cell']}, in the units of the series", table
    )
    _print_errors(trained, methods, known, K, names)


def _read_series(args, saved, known, scaling) -> np.ndarray:
    """Reads the series to continue, by the columns of the runs, and notes an unknown range."""
    if args.input is None:
        for name in list(SERIES)[1:]:
            if getattr(args, name) is not None:
                raise ValueError(f"argument --{name}: needs --input")
        return known
    given = {name: getattr(args, name) for name in SERIES}
    series = options.read_series({**given, "columns": args.columns or saved["columns"]})
    D, least = known.shape[1], len(known) * 3 // 10  # for any period and window
    if series.shape[1] != D:
        expected = f"expected {D} columns as in {args.folder}"
        raise ValueError(f"argument --input: {args.input}: {expected}, got {series.shape[1]}")
    if len(series) < least:
        got = f"expected {least} rows or more, got {len(series)}"
        raise ValueError(f"argument --input: {args.input}: {got}")
    first = known[: len(known) * 3 // 5]
    if scaling.difference:
        first, values = np.diff(first, axis=0), np.diff(series, axis=0)
    else:
        values = series
    low, high = first.min(axis=0), first.max(axis=0)
    margin = 0.01 * (high - low)
    wild = (values.min(axis=0) < low - margin) | (values.max(axis=0) > high + margin)
    for d in np.flatnonzero(wild):
        found = f"column {d} reaches from {values[:, d].min():g} to {values[:, d].max():g}"
        learnt = f"the runs learnt from {low[d]:g} to {high[d]:g}"
        print(f"{args.input}: {found}, {learnt}", file=sys.stderr)
    return series


def _free_runs(trained, pasts: np.ndarray, K: int) -> np.ndarray:
    """Forecasts K steps after each of N series `[N, T, D]` by S seeds: `[S, N, K, D]`."""
    from jlstm.experiments import free_run

    def one(model, past):
        return free_run(model, trained.task.scaling, past, K, cell=trained.cell)

    both: Any = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return np.asarray(jax.jit(both)(trained.best, pasts.astype(np.float32)), np.float64)


def _iterate(method, pasts: np.ndarray, K: int) -> np.ndarray:
    """Forecasts K steps by a simple method, each from its forecasts before: `[N, K, D]`."""
    for _ in range(K):
        pasts = np.concatenate([pasts, method(pasts)[:, None]], axis=1)
    return pasts[:, -K:]


def _print_errors(trained, methods, known, K, names) -> None:
    """Prints errors of K steps from starts in the test part, and how much the spread covers."""
    begin, end, width = len(known) * 4 // 5, len(known) - K, len(known) * 3 // 5
    if end < begin:
        print("\nThe test part is shorter than the horizon, so no error is shown.")
        return
    starts = np.unique(np.linspace(begin, end, STARTS).astype(int))
    pasts = np.stack([known[start - width : start] for start in starts])
    actual = np.stack([known[start : start + K] for start in starts])
    forecasts = _free_runs(trained, pasts, K)
    low, high = np.quantile(forecasts, BAND, axis=0)
    found = {"median of seeds": np.median(forecasts, axis=0)}
    found |= {name: _iterate(method, pasts, K) for name, method in methods.items()}
    errors = {name: np.sqrt(((f - actual) ** 2).mean(axis=(0, 1))) for name, f in found.items()}
    table = {"method": list(errors)}
    table |= {name: [error[d] for error in errors.values()] for d, name in enumerate(names)}
    print_table(
        f"\nRoot mean squared errors of {K} steps from {len(starts)} starts in the test part", table
    )
    covered = ((actual >= low) & (actual <= high)).mean()
    print(f"\nlow to high covers {covered:.0%} of these values")
