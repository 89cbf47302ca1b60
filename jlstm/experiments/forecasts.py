"""Forecasts of a trained model in the units of its series: one step ahead, or free-running."""

from typing import Any

import jax
import jax.numpy as jnp

from jlstm._src.cell import Cell
from jlstm._src.checks import check, check_floats, check_size
from jlstm._src.dtypes import Array
from jlstm._src.lstm import lstm
from jlstm._src.unroll_stack import unroll_stack
from jlstm.experiments.model import Model, read_out
from jlstm.experiments.tasks.forecast import scaled
from jlstm.experiments.tasks.task import Scaling


def one_step_forecasts(
    model: Model, scaling: Scaling, series: Array, *, cell: Cell = lstm
) -> Array:
    """Forecasts the next value of a series at each of its steps: `[T, D]`.

        forecasts[t] = x_t + deviation * outputs[t]   is the forecast of x_tp1

    A model of differences starts at the second step: `[T - 1, D]`.

    Args:
      model, scaling: a forecaster, as `load_run(folder).best` and `load_run(folder).task.scaling`.
      series: floats `[T, D]` in their own units.
      cell: the cell of the model.

    Raises:
      TypeError, ValueError: the series is malformed, or does not fit the model.
    """
    _, outputs = _outputs(model, scaling, series, cell)
    return _moved(series[len(series) - len(outputs) :], scaling, outputs)


def free_run(
    model: Model, scaling: Scaling, series: Array, horizon: int, *, cell: Cell = lstm
) -> Array:
    """Forecasts K steps beyond the end of a series, each from the forecasts before it: `[K, D]`.

    Args:
      model, scaling, series, cell: as for `one_step_forecasts`.
      horizon: K.

    Raises:
      TypeError, ValueError: as for `one_step_forecasts`, or K is not a positive int.

    >>> import jax, numpy as np
    >>> from jlstm.experiments import init_model, tasks
    >>> model = init_model(jax.random.key(0), 1, (4,), 1)
    >>> series = np.sin(np.arange(200.0))[:, None]
    >>> free_run(model, tasks.forecast(series, window=20).scaling, series, 5).shape
    (5, 1)
    """
    check_size("horizon", horizon)
    states, outputs = _outputs(model, scaling, series, cell)
    first = jnp.asarray(scaled(scaling, series[-2:])[-1], outputs.dtype)
    mean = jnp.asarray(scaling.mean / scaling.deviation, outputs.dtype)

    def step(carry, _):
        states, x, output = carry
        x = output - mean if scaling.difference else x + output
        states, hs = unroll_stack(model.layers, x[None], states, cell=cell)
        return (states, x, read_out(model, hs)[0]), output

    _, outputs = jax.lax.scan(step, (states, first, outputs[-1]), length=horizon)
    return _moved(series[-1:], scaling, jnp.cumsum(outputs, axis=0))


def _outputs(model, scaling, series, cell) -> tuple[Any, Array]:
    check_floats("series", series)
    D, least = model.W.shape[1], 1 + int(scaling.difference)
    fits = series.ndim == 2 and series.shape[1] == D and len(series) >= least
    check(fits, "series", f"[T, {D}], T >= {least}", series)
    check(scaling.mean.shape == (D,), "scaling", f"mean [{D}]", scaling.mean)
    xs = jnp.asarray(scaled(scaling, series), model.W.dtype)
    states, hs = unroll_stack(model.layers, xs, mask=jnp.isfinite(xs).all(-1), cell=cell)
    return states, read_out(model, hs)


def _moved(series, scaling, outputs):
    series = jnp.asarray(series)
    changes = jnp.asarray(scaling.deviation, outputs.dtype)[None] * outputs
    return series + changes.astype(series.dtype)
