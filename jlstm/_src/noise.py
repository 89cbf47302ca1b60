"""Noise that regularises a recurrent layer: dropout, recurrent dropout and zoneout."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.core import Tracer

from jlstm._src.cell import Cell, Layout
from jlstm._src.checks import check_key, describe, is_real
from jlstm._src.derivative import Options
from jlstm._src.dtypes import Array
from jlstm._src.lstm import LSTMState
from jlstm._src.unroll import Arguments, run


class Rates(NamedTuple):
    """The rate of each kind of noise, from 0, which turns it off, to below 1.

    A rate may be traced, so that one compiled program serves many.
    """

    dropout: chex.Numeric
    recurrent_dropout: chex.Numeric
    zoneout: LSTMState


class Noise(NamedTuple):
    """The draws for every step of a layer: bool `[T, *B, H]`, or None where nothing is drawn.

    keep: whether `h_tm1 U` sees this unit.
    zone_h, zone_c: whether this unit keeps its old h, or c.
    """

    keep: Array | None = None
    zone_h: Array | None = None
    zone_c: Array | None = None


def run_with_noise(
    cell: Cell, arguments: Arguments, rates: Rates, key: chex.PRNGKey | None, options: Options
) -> tuple[Any, Any]:
    """Runs a cell with recurrent dropout and zoneout, as `unroll.run` does without.

    With either kind of noise the derivative is JAX's differentiation of the scan.
    """
    if all(is_off(rate) for rate in (rates.recurrent_dropout, *rates.zoneout)):
        return run(cell, arguments, options)
    steps = arguments.steps
    noise = _draw(key, rates, steps.x.shape[0], arguments.state, steps.reset)
    arguments = arguments._replace(steps=steps._replace(x=(steps.x, noise)))
    return run(partial(_noisy_cell, rates, cell), arguments, options)


def drop(key: chex.PRNGKey | None, rate: chex.Numeric, ys: Array) -> Array:
    """Dropout: zeros at `rate`, and the rest scaled so that the mean stays."""
    if key is None or is_off(rate):
        return ys
    return _thin(jax.random.bernoulli(key, 1 - rate, ys.shape), rate, ys)


def is_off(rate: chex.Numeric) -> bool:
    """Whether a rate is known to be zero before anything is traced."""
    return isinstance(rate, int | float) and rate == 0


def check_noise(rates: Rates, key: chex.PRNGKey | None, layouts: Sequence[Layout]) -> None:
    """Checks that rates are in [0, 1), that dropout has a key, and that cells carry `LSTMState`.

    Recurrent dropout and zoneout are noise on h and c. For a cell with another state they would be
    something that has not been published.
    """
    others = [layout.state for layout in layouts if layout.state is not LSTMState]
    named = {
        "dropout": rates.dropout,
        "recurrent_dropout": rates.recurrent_dropout,
        "zoneout.h": rates.zoneout.h,
        "zoneout.c": rates.zoneout.c,
    }
    for name, rate in named.items():
        _check_rate(name, rate)
        if key is None and not is_off(rate) and not name.startswith("zoneout"):
            raise ValueError(f"key: expected a key to draw {name} from, got None")
        if others and not is_off(rate) and name != "dropout":
            raise ValueError(f"{name}: expected 0 for a cell with {others[0].__name__}, got {rate}")
    if key is not None:
        check_key(key)


def _noisy_cell(rates: Rates, cell: Cell, params, state: LSTMState, inputs):
    """The cell with dropout on the h_tm1 that it sees, whose units may keep their old state."""
    x, noise = inputs
    seen = state.h if noise.keep is None else _thin(noise.keep, rates.recurrent_dropout, state.h)
    (h_t, c_t), _ = cell(params, LSTMState(seen, state.c), x)
    h_t = _zoneout(noise.zone_h, rates.zoneout.h, state.h, h_t)
    c_t = _zoneout(noise.zone_c, rates.zoneout.c, state.c, c_t)
    return LSTMState(h_t, c_t), h_t


def _zoneout(zone, rate, old, new):
    """The old value where the unit keeps it; the mean of both where nothing was drawn."""
    if is_off(rate):
        return new
    if zone is not None:
        return jnp.where(zone, old, new)
    rate = jnp.asarray(rate, old.dtype)
    return rate * old + (1 - rate) * new


def _thin(keep, rate, values):
    return jnp.where(keep, values / (1 - jnp.asarray(rate, values.dtype)), 0)


def _draw(key, rates: Rates, T, state, reset) -> Noise:
    if key is None:
        return Noise()
    keep_key, h_key, c_key = jax.random.split(key, 3)
    zone_h = _bernoulli(h_key, rates.zoneout.h, (T, *state.h.shape))
    zone_c = _bernoulli(c_key, rates.zoneout.c, (T, *state.c.shape))
    dropped = _bernoulli(keep_key, rates.recurrent_dropout, (T, *state.h.shape))
    return Noise(None if dropped is None else ~_hold_for_sequence(dropped, reset), zone_h, zone_c)


def _bernoulli(key, rate, shape):
    return None if is_off(rate) else jax.random.bernoulli(key, rate, shape)


def _hold_for_sequence(drawn, reset):
    """The draw of a sequence's first step, repeated at every step of the sequence."""
    if reset is None:
        return jnp.broadcast_to(drawn[:1], drawn.shape)
    times = jax.lax.broadcasted_iota(jnp.int32, reset.shape, 0)
    first = jax.lax.cummax(jnp.where(reset, times, 0), axis=0)
    return jnp.take_along_axis(drawn, first[..., None], axis=0)


def _check_rate(name, rate):
    """Checks that a rate is a scalar in [0, 1), as far as its value is known."""
    if isinstance(rate, bool) or not is_real(rate):
        raise TypeError(f"{name}: expected a number, got {describe(rate)}")
    if not isinstance(rate, Tracer) and not 0 <= float(rate) < 1:
        raise ValueError(f"{name}: expected a rate from 0 to below 1, got {rate}")
