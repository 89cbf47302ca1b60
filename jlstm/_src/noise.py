"""Noise that regularises a recurrent layer: dropout, recurrent dropout and zoneout."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.core import Tracer

from jlstm._src.cell import Layout
from jlstm._src.checks import check_real
from jlstm._src.dtypes import Array
from jlstm._src.lstm import LSTMState
from jlstm._src.scan import Noise


class Rates(NamedTuple):
    """Rates of each kind of noise, from 0, which turns it off, to below 1. They may be traced."""

    dropout: chex.Numeric
    recurrent_dropout: chex.Numeric
    zoneout: LSTMState


def draw_noise(
    key: chex.PRNGKey | None, rates: Rates, T: int, state: LSTMState, reset: Array | None
) -> Noise | None:
    """Draws the recurrent dropout and zoneout of a layer for T steps, or None if both are off."""
    if all(is_off(rate) for rate in (rates.recurrent_dropout, *rates.zoneout)):
        return None
    keys = (None,) * 3 if key is None else jax.random.split(key, 3)

    def draw(key, rate, like) -> Any:
        """Draws floats `[T, *B, H]`, 1 at `rate`, else 0; without a key, their mean `rate`."""
        if is_off(rate):
            return None
        shape = (T, *like.shape)
        if key is None:
            return jnp.full(shape, rate, like.dtype)
        return jax.random.bernoulli(key, rate, shape).astype(like.dtype)

    hold = LSTMState(*map(draw, keys[1:], rates.zoneout, state))
    dropped = draw(keys[0], rates.recurrent_dropout, state.h)
    if dropped is None:
        return Noise(None, hold)
    rate = jnp.asarray(rates.recurrent_dropout, dropped.dtype)
    return Noise((1 - _hold_for_sequence(dropped, reset)) / (1 - rate), hold)


def drop(key: chex.PRNGKey | None, rate: chex.Numeric, ys: Array) -> Array:
    """Sets entries to zero at `rate`, and scales the rest to keep the mean."""
    if key is None or is_off(rate):
        return ys
    keep = jax.random.bernoulli(key, 1 - rate, ys.shape)
    return jnp.where(keep, ys / (1 - jnp.asarray(rate, ys.dtype)), 0)


def is_off(rate: chex.Numeric) -> bool:
    """Whether a rate is known to be zero before tracing."""
    return isinstance(rate, int | float) and rate == 0


def check_noise(rates: Rates, key: chex.PRNGKey | None, layouts: Sequence[Layout]) -> None:
    """Checks that rates are in [0, 1), that dropout has a key, and that cells carry `LSTMState`."""
    # Recurrent dropout and zoneout have been published for states of h and c alone.
    others = [layout.state for layout in layouts if layout.state is not LSTMState]
    names = "dropout", "recurrent_dropout", "zoneout.h", "zoneout.c"
    for name, rate in zip(names, (*rates[:2], *rates.zoneout), strict=True):
        check_real(name, rate)
        if not isinstance(rate, Tracer) and not 0 <= float(rate) < 1:
            raise ValueError(f"{name}: expected a rate from 0 to below 1, got {rate}")
        if key is None and not is_off(rate) and not name.startswith("zoneout"):
            raise ValueError(f"key: expected a key to draw {name} from, got None")
        if others and not is_off(rate) and name != "dropout":
            raise ValueError(f"{name}: expected 0 for a cell with {others[0].__name__}, got {rate}")


def _hold_for_sequence(drawn, reset):
    """Repeats the draw of a sequence's first step at every step of the sequence."""
    if reset is None:
        return jnp.broadcast_to(drawn[:1], drawn.shape)
    times = jax.lax.broadcasted_iota(jnp.int32, reset.shape, 0)
    first = jax.lax.cummax(jnp.where(reset, times, 0), axis=0)
    return jnp.take_along_axis(drawn, first[..., None], axis=0)
