"""The noise that regularises a recurrent layer: dropout, recurrent dropout and zoneout."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jlstm.checks import check_key, check_rate
from jlstm.dtypes import Array, Key, Numeric
from jlstm.layout import Layout
from jlstm.params import LSTMState
from jlstm.recurrence import Cell, carries, unroll


class Rates(NamedTuple):
    """How often each kind of noise strikes, from 0, which is off, to below 1.

    A rate may be traced, so that one compiled program serves many.
    """

    dropout: Numeric
    recurrent_dropout: Numeric
    zoneout: LSTMState


class Noise(NamedTuple):
    """What is drawn for every step of a layer: bool `[T, *B, H]`, or None where nothing is.

    keep: whether `h_tm1 U` sees this unit.
    zone_h, zone_c: whether this unit keeps its old h, or c.
    """

    keep: Array | None = None
    zone_h: Array | None = None
    zone_c: Array | None = None


def unroll_with_noise(cell, layout, params, xs, state, initial_state, rates, key, **options):
    """`unroll` of a cell with recurrent dropout and zoneout, where their rates ask."""
    if all(is_off(rate) for rate in (rates.recurrent_dropout, *rates.zoneout)):
        return unroll(params, xs, state, initial_state=initial_state, cell=cell, **options)
    state, initial_state = carries(layout, params, xs, state, initial_state)
    noise = _draw(key, rates, xs.shape[0], state, options["reset"])
    cell = partial(_noisy_cell, rates, cell)
    inputs = (xs, noise)
    return unroll(params, inputs, state, initial_state=initial_state, cell=cell, **options)


def drop(key: Key | None, rate: Numeric, ys: Array) -> Array:
    """Dropout: zero at `rate`, and the rest scaled so that the mean stays."""
    if key is None or is_off(rate):
        return ys
    return _thin(jax.random.bernoulli(key, 1 - rate, ys.shape), rate, ys)


def is_off(rate: Numeric) -> bool:
    """Whether a rate is known to be zero before anything is traced."""
    return isinstance(rate, int | float) and rate == 0


def check_noise(rates: Rates, key: Key | None, layouts: Sequence[Layout]) -> None:
    """Refuses rates outside [0, 1), dropout without a key to draw it from, and other states.

    Recurrent dropout and zoneout are noise on h and c: of a cell that carries anything else, or
    keeps in h what it remembers, they would make something that has not been published.
    """
    others = [layout.state for layout in layouts if layout.state is not LSTMState]
    named = {
        "dropout": rates.dropout,
        "recurrent_dropout": rates.recurrent_dropout,
        "zoneout.h": rates.zoneout.h,
        "zoneout.c": rates.zoneout.c,
    }
    for name, rate in named.items():
        check_rate(name, rate)
        if key is None and not is_off(rate) and not name.startswith("zoneout"):
            raise ValueError(f"key: expected a key to draw {name} from, got None")
        if others and not is_off(rate) and name != "dropout":
            raise ValueError(f"{name}: expected 0 for a cell with {others[0].__name__}, got {rate}")
    if key is not None:
        check_key(key)


def _noisy_cell(rates: Rates, cell: Cell, params, state: LSTMState, inputs):
    """The cell that sees a thinned h_tm1, and whose units may keep their old state."""
    x, noise = inputs
    seen = state.h if noise.keep is None else _thin(noise.keep, rates.recurrent_dropout, state.h)
    (h_t, c_t), _ = cell(params, LSTMState(seen, state.c), x)
    h_t = _zoneout(noise.zone_h, rates.zoneout.h, state.h, h_t)
    c_t = _zoneout(noise.zone_c, rates.zoneout.c, state.c, c_t)
    return LSTMState(h_t, c_t), h_t


def _zoneout(zone, rate, old, new):
    """The old value where it is kept; the mean of both where nothing was drawn."""
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
    """What was drawn for the first step of a sequence, at every step of it."""
    if reset is None:
        return jnp.broadcast_to(drawn[:1], drawn.shape)
    times = jax.lax.broadcasted_iota(jnp.int32, reset.shape, 0)
    first = jax.lax.cummax(jnp.where(reset, times, 0), axis=0)
    return jnp.take_along_axis(drawn, first[..., None], axis=0)
