"""Forecasts are the model's outputs in the units of the series, step by step as by hand."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlstm import cells
from jlstm.experiments import free_run, init_model, one_step_forecasts, tasks
from jlstm.experiments.tasks.task import Scaling
from tests.helpers import oracle
from tests.helpers.comparisons import float64

SERIES = np.random.default_rng(0).standard_normal((60, 2)).cumsum(axis=0) * [1.0, 30.0] + [5.0, 90]
CELLS = {"lstm": {}, "gru": {"cell": cells.gru}}


def make(name, layers=(4, 3)):
    init: Any = {"init": cells.init_gru} if name == "gru" else {}
    model = init_model(jax.random.key(1), 2, layers, 2, **init)
    return jax.tree.map(lambda p: p + 0.05, model)  # so that no bias is zero


def by_hand(name, model, scaling, series, horizon):
    """Each forecast from a run over the whole series so far, in float64 NumPy."""
    model, series, one_step = float64(model), series.copy(), []
    for _ in range(horizon):
        values = np.diff(series, axis=0) if scaling.difference else series
        xs = (values - scaling.mean) / scaling.deviation
        _, hs = oracle.unroll_stack(name, model.layers, xs)
        outputs = hs @ model.W + model.b
        one_step = one_step or [series[len(series) - len(xs) :] + scaling.deviation * outputs]
        series = np.append(series, series[-1:] + scaling.deviation * outputs[-1:], axis=0)
    return one_step[0], series[len(series) - horizon :]


@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_forecasts_are_scaled_unrolled_read_out_and_unscaled(name, difference):
    scaling = cast(Any, tasks.forecast(SERIES, window=8, difference=difference).scaling)
    model = make(name)
    one_step, free = by_hand(name, model, scaling, SERIES, 6)
    for given in (SERIES, jnp.asarray(SERIES, jnp.float32)):
        got = one_step_forecasts(model, scaling, given, **CELLS[name])
        np.testing.assert_allclose(got, one_step, rtol=1e-5)
        got = free_run(model, scaling, given, 6, **CELLS[name])
        np.testing.assert_allclose(got, free, rtol=2e-5)


def test_forecasts_map_over_models_and_series_under_jit():
    scaling = cast(Any, tasks.forecast(SERIES, window=8).scaling)
    models = jax.tree.map(lambda *p: jnp.stack(p), make("lstm"), make("lstm", (4, 3)))
    several = jnp.asarray(np.stack([SERIES, SERIES[::-1]]), jnp.float32)

    @jax.jit
    def all_of_them(models, several):
        one = jax.vmap(lambda model, past: free_run(model, scaling, past, 3), (None, 0))
        return jax.vmap(one, (0, None))(models, several)

    got = all_of_them(models, several)
    assert got.shape == (2, 2, 3, 2)
    np.testing.assert_allclose(
        got[1, 1], free_run(make("lstm"), scaling, SERIES[::-1], 3), rtol=1e-5
    )


def test_a_gradient_reaches_the_model_through_a_free_run():
    scaling = cast(Any, tasks.forecast(SERIES, window=8).scaling)
    series = jnp.asarray(SERIES, jnp.float32)
    slope = jax.grad(lambda model: free_run(model, scaling, series, 4).sum())(make("lstm"))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slope))


SCALING = Scaling(np.zeros(2), np.ones(2), np.asarray(False))
REFUSED = {
    "horizon": ((SCALING, SERIES, 0), ValueError, "horizon: expected at least 1"),
    "columns": ((SCALING, SERIES[:, :1], 2), ValueError, r"series: expected \[T, 2\], T >= 1"),
    "rank": ((SCALING, SERIES[0], 2), ValueError, r"series: expected \[T, 2\]"),
    "empty": ((SCALING, SERIES[:0], 2), ValueError, r"series: expected \[T, 2\]"),
    "ints": ((SCALING, SERIES.astype(int), 2), TypeError, "series: expected an array of floats"),
    "one difference": (
        (SCALING._replace(difference=np.asarray(True)), SERIES[:1], 2),
        ValueError,
        r"series: expected \[T, 2\], T >= 2",
    ),
    "scaling": (
        (Scaling(np.zeros(3), np.ones(3), np.asarray(False)), SERIES, 2),
        ValueError,
        r"scaling: expected mean \[2\], got",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    given, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        free_run(make("lstm"), *given)


def test_outputs_that_are_not_the_inputs_are_refused():
    model = init_model(jax.random.key(1), 2, (4,), 3)
    with pytest.raises(ValueError, match=r"series: expected \[T, 3\]"):
        free_run(model, SCALING, SERIES, 2)
