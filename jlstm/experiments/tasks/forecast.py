"""One-step forecasts of a series of your own, and simple methods to compare with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jlstm._src.checks import check, check_floats, check_size
from jlstm._src.dtypes import Array
from jlstm.experiments.tasks.task import Batch, Scaling, Task

# A simple method maps the last values `[N, W, D]` of N series to their next values `[N, D]`.
Method = Callable[[np.ndarray], np.ndarray]

PENALTIES = 10.0 ** np.arange(-4, 3)  # of the ridge regression, per row
LONGEST = 400  # steps, the longest period that is estimated
ROWS = 20_000  # the largest number of rows to fit the ridge regression to, the latest ones


def forecast(
    series: Array,
    *,
    window: int = 50,
    difference: bool = False,
    period: int | None = None,
    missing: bool = False,
) -> Task:
    """Makes the task of forecasting a series: its values at t + 1 from the values up to t.

    The first three fifths of the series are for training, in random windows; the next fifth is for
    validation and the last one for the test, in adjacent windows, each after another window that
    warms the state up. Inputs are standardised by the first part. Outputs are the changes to the
    next step, in the inputs' deviations, so the output 0 is persistence: the last value again.

    The task is solved when the validation loss is below the losses of persistence, the seasonal
    naive forecast (the value a period ago), and a ridge regression on the last `window` values.

    Args:
      series: `[N, D]`, of finite floats or ints.
      window: T, the number of forecasts in a window.
      difference: whether the inputs are differences, for a series that leaves the range of its
        first part.
      period: the steps of a season; None estimates it from the first part: the shortest local
        minimum of the seasonal naive error, up to 400, of at most 1.5 times the smallest one.
      missing: whether rows may hold NaN. A mask skips these rows, and no target that is unknown
        is scored.

    Raises:
      TypeError, ValueError: the series is not an array of finite numbers, is too short for a window
        in each part, or is constant in a column.

    >>> import jax, numpy as np
    >>> task = forecast(np.sin(np.arange(500.0))[:, None], window=20)
    >>> task.sample(jax.random.key(0), 64).xs.shape, task.test(jax.random.key(0)).xs.shape
    ((20, 64, 1), (40, 5, 1))
    """
    if getattr(getattr(series, "dtype", None), "kind", "") not in tuple("iu"):
        check_floats("series", series)
    check_size("window", window)
    check(series.ndim == 2, "series", "shape [N, D]", series)
    series = np.asarray(series, np.float64)
    wrong = np.isinf(series) if missing else ~np.isfinite(series)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        got = f"{series[row, column]} at [{row}, {column}]"
        raise ValueError(f"series: expected finite numbers, got {got}")
    N, D = series.shape
    first, second = N * 3 // 5, N * 4 // 5
    if second - first < window or first < window + 2:
        least = f"at least {window} values in each fifth for windows of {window}"
        raise ValueError(f"series: expected {least}, got {second - first}")
    if period is not None:
        check_size("period", period)
        most = f"at most half of the {first} training values"
        check(period <= first // 2, "period", most, period)
    scaling = scaling_of(series[:first], difference)
    xs = scaled(scaling, series).astype(np.float32)[:-1]
    begin = int(difference)  # row j of xs is x_t at t = j + begin
    changes = (np.diff(series, axis=0) / scaling.deviation).astype(np.float32)[begin:]

    def windows(starts, steps):
        at = starts[None] + jnp.arange(steps)[:, None]
        there = jnp.asarray(np.isfinite(xs).all(axis=1))[at] if missing else None
        return Batch(jnp.asarray(xs)[at], jnp.asarray(changes)[at], there)

    def sample(key, batch_size):
        starts = jax.random.randint(key, (batch_size,), 0, first - begin - window)
        return windows(starts, window)

    def held_out(part):
        starts = part[0] - 1 - begin + window * jnp.arange(len(part) // window)
        return lambda key: windows(starts - window, 2 * window)

    def mean_error(outputs, batch, axis=None):
        """Computes the mean squared error of known targets, or of each window for axes (0, 2)."""
        if not missing:
            return ((outputs - batch.targets) ** 2).mean(axis)
        known = jnp.isfinite(batch.targets) & batch.mask[..., None]
        squared = jnp.where(known, outputs - jnp.where(known, batch.targets, 0), 0) ** 2
        return squared.sum(axis) / jnp.maximum(known.sum(axis), 1).astype(xs.dtype)

    def correct(outputs, batch):
        return mean_error(outputs, batch, (0, 2)) < mean_error(0, batch, (0, 2))

    parts = (first, second), (second, N)
    validation, test = (range(b - (b - a) // window * window, b) for a, b in parts)
    scale = scaling.deviation
    baselines = {
        name: (_error(method, series, validation, scale), _error(method, series, test, scale))
        for name, method in methods_for(series, window, period).items()
    }
    return Task(
        sample,
        loss=mean_error,
        metric=lambda outputs, batch: mean_error(outputs, batch) / mean_error(0, batch),
        output_size=D,
        answers="every",
        validation=held_out(validation),
        test=held_out(test),
        warmup=window,
        correct=correct,
        solved_below=min(loss for loss, _ in baselines.values()),
        criterion="validation loss below persistence, seasonal naive and ridge",
        baseline=baselines["persistence"][1],
        baselines=baselines,
        scaling=scaling,
        name="forecast",
        metric_name="mean squared error relative to persistence",
    )


def scaling_of(series: np.ndarray, difference: bool) -> Scaling:
    """Returns the mean and the deviation of a series, or of its differences."""
    values = np.diff(series, axis=0) if difference else series
    values = values[np.isfinite(values).all(axis=1)]
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = values.mean(axis=0), values.std(axis=0)
    if not (np.isfinite(deviation) & (deviation > 0)).all():
        raise ValueError("series: a column is constant or too large in the training part")
    return Scaling(mean, deviation, np.asarray(difference))


def scaled(scaling: Scaling, series: Any) -> Any:
    """Returns the inputs for a series `[T, D]`: `[T, D]`, or `[T - 1, D]` for differences."""
    values = series[1:] - series[:-1] if scaling.difference else series
    mean, deviation = (a.astype(values.dtype)[None] for a in scaling[:2])
    return (values - mean) / deviation


def methods_for(series: np.ndarray, window: int, period: int | None = None) -> dict[str, Method]:
    """Fits simple forecasting methods to the first three fifths of a series."""
    first = series[: len(series) * 3 // 5]
    mean, scale = np.nanmean(first, axis=0), np.nanstd(first, axis=0)

    def season_error(period):
        return np.nanmean(((first[period:] - first[:-period]) / scale) ** 2)

    if period is None:
        found = {p: season_error(p) for p in range(1, min(len(first) // 3, LONGEST) + 1)}
        dips = [p for p in list(found)[1:-1] if found[p] <= min(found[p - 1], found[p + 1])] or [1]
        period = next(p for p in dips if found[p] <= 1.5 * min(found[dip] for dip in dips))
    past = _lags(series, window)[:-1]
    changes = (series[window:] - past[:, -1]) / scale
    fit = slice(max(len(first) - window - ROWS, 0), len(first) - window)
    check = slice(len(first) - window, len(series) * 4 // 5 - window)

    def features(past):
        centred = (past[:, -window:] - mean) / scale
        return np.concatenate([np.ones((len(past), 1)), centred.reshape(len(past), -1)], axis=1)

    X, Y = features(past[fit]), changes[fit]
    whole = np.isfinite(X).all(axis=1) & np.isfinite(Y).all(axis=1)
    X, Y = X[whole], Y[whole]
    identity = len(X) * np.eye(X.shape[1])
    fits = [np.linalg.solve(X.T @ X + penalty * identity, X.T @ Y) for penalty in PENALTIES]
    found = features(past[check])
    ridge = min(fits, key=lambda weights: np.nanmean((found @ weights - changes[check]) ** 2))
    return {
        "persistence": lambda past: past[:, -1],
        f"seasonal naive ({period})": lambda past: past[:, -period],
        "ridge": lambda past: past[:, -1] + features(past) @ ridge * scale,
    }


def _lags(series, width):
    return np.lib.stride_tricks.sliding_window_view(series, width, axis=0).swapaxes(1, 2)


def _error(method, series, part, deviation):
    errors = method(_lags(series, part.start)[: len(part)]) - series[part.start : part.stop]
    return float(np.nanmean((errors / deviation) ** 2))
