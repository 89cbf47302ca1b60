"""One cell with the options of ONNX's LSTM operator."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax.numpy as jnp

from jlstm._src.cell import AffineCell, affine
from jlstm._src.checks import check, check_bool
from jlstm._src.dtypes import Array
from jlstm._src.lstm import LSTMState
from jlstm.cells.activations import Activation, activate
from jlstm.cells.gates import PeepholeParams, gated, peek, peepholes, split


@dataclass(frozen=True)
class Options:
    """Static options of `general`; the defaults give the standard LSTM.

    f, g, h: the activations of the gates, of the candidate and of the new cell state.
    clip: bounds the inputs of f and g to [-clip, clip]; None means no bound.
    coupled: whether the forget gate is 1 - i, without weights of its own.
    """

    f: Activation = Activation("sigmoid")
    g: Activation = Activation("tanh")
    h: Activation = Activation("tanh")
    clip: float | None = None
    coupled: bool = False


def general(options: Options) -> AffineCell:
    """The cell of ONNX's LSTM operator.

        i, f, g, o = split(x W + h_tm1 U + b)
        i = f(i + p_i ⊙ c_tm1),   f = f(f + p_f ⊙ c_tm1), or 1 - i where coupled
        c_t = f ⊙ c_tm1 + i ⊙ g(g)
        h_t = f(o + p_o ⊙ c_t) ⊙ h(c_t)

    Args:
      options: the activations, the bound on the inputs of f and g, and whether gates are coupled.

    Returns:
      A cell of `PeepholeParams(W [D, 4H], U [H, 4H], b [4H], P [3H])`, or of `W [D, 3H]`, `P [2H]`
      without f for coupled gates; P may be None. The cell can be pickled. Equal options give the
      same cell, which `jit` does not trace again; the 256 most recent cells are cached.

    Raises:
      TypeError, ValueError: options of the wrong type, or a bound that is not positive.

    >>> import jax, jlstm
    >>> cell = jlstm.cells.general(jlstm.cells.Options(clip=3.0))
    >>> params = jlstm.cells.PeepholeParams(*jlstm.init(jax.random.key(0), 2, 3))
    >>> state, h = cell(params, jlstm.LSTMState(*jax.numpy.zeros((2, 3))), jax.numpy.ones(2))
    >>> h.shape
    (3,)
    """
    check(isinstance(options, Options), "options", "Options", options, TypeError)
    for name in "fgh":
        value = getattr(options, name)
        check(isinstance(value, Activation), f"options.{name}", "an Activation", value, TypeError)
    check_bool("options.coupled", options.coupled)
    clip = options.clip
    is_right = isinstance(clip, int | float | None) and not isinstance(clip, bool)
    check(is_right, "options.clip", "a float or None", clip, TypeError)
    if clip is not None and not clip > 0:
        raise ValueError(f"options.clip: expected a positive bound, got {clip}")
    return _cell(options)


@lru_cache(maxsize=256)
def _cell(options: Options) -> Any:
    """The cell with its declarations, made from partial functions, which can be pickled."""
    declared, cell = _declared(options), partial(_step, options)
    cell.__doc__ = declared.__doc__
    for name in ("layout", "elementwise", "equations"):
        setattr(cell, name, getattr(declared, name))
    return cell


def _step(options, params, state, x):
    return _declared(options)(params, state, x)


@lru_cache(maxsize=256)
def _declared(options):
    equations = partial(_equations, options)
    equations.__doc__ = "One step of the LSTM with `Options`."
    return affine(gated("igo" if options.coupled else "ifgo"), elementwise=True)(equations)


def _equations(options: Options, params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    def bounded(activation: Activation, z: Array) -> Array:
        clip = options.clip
        return activate(activation, z if clip is None else jnp.clip(z, -clip, clip))

    c_tm1, gates = state.c, 3 if options.coupled else 4
    z_i, *z_f, z_g, z_o = split(z, gates)
    p_i, *p_f, p_o = peepholes(params, gates - 1)
    i = bounded(options.f, peek(z_i, p_i, c_tm1))
    f = 1 - i if options.coupled else bounded(options.f, peek(z_f[0], p_f[0], c_tm1))
    c_t = f * c_tm1 + i * bounded(options.g, z_g)
    h_t = bounded(options.f, peek(z_o, p_o, c_t)) * activate(options.h, c_t)
    return LSTMState(h_t, c_t)
