"""The oracle: every cell of jlstm as its paper writes it, and the contract of `unroll`, in loops.

Steps, rows, directions and layers are plain Python, and a step is computed on the vectors of one
row. NumPy arrays are computed with in float64. Arrays of JAX stay what they are, traced ones too,
so JAX can differentiate the same lines. The module shares no code with jlstm, whose classes and
functions it only names in the table `CELLS`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jlstm import Bidirectional, LSTMState, cells
from jlstm.cells import Activation, FullGateState, Options, RNNState, SLSTMState

# --- arithmetic, of NumPy or of JAX, whichever made the array


def library(array):
    return array.__array_namespace__()


def tanh(z):
    return library(z).tanh(z)


def sigmoid(z):
    return 1 / (1 + library(z).exp(-z))


def softsign(z):
    return z / (1 + abs(z))


def leaky_relu(z, slope):
    return library(z).where(z >= 0, z, slope * z)


def clip(z, bound):
    return library(z).clip(z, -bound, bound)


def normalise(a):
    """Mean 0 and variance 1 (Ba et al. 2016)."""
    mean = a.sum() / a.size
    variance = ((a - mean) ** 2).sum() / a.size
    return (a - mean) / library(a).sqrt(variance + 1e-5)


def join(vectors):
    return library(vectors[0]).concatenate(vectors)


def blocks(array, k):
    """The k blocks of the last axis."""
    size = array.shape[-1] // k
    return [array[..., j * size : (j + 1) * size] for j in range(k)]


def peepholes(params, k):
    """The k blocks of P, zero where there are none."""
    return [0.0] * k if params.P is None else blocks(params.P, k)


def affine(params, h, x):
    return x @ params.W + h @ params.U + params.b


# --- one step: `(params, state, x) -> state`, the output first in the state


def lstm(params, state, x):
    """Hochreiter & Schmidhuber (1997) with the forget gate of Gers et al. (2000)."""
    h, c = state
    i, f, g, o = blocks(affine(params, h, x), 4)
    c_t = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c_t), c_t


def peephole(params, state, x, squash=tanh, show=tanh):
    """The vanilla LSTM of Greff et al. (2017), whose parts the next eight leave out."""
    h, c = state
    i, f, g, o = blocks(affine(params, h, x), 4)
    p_i, p_f, p_o = peepholes(params, 3)
    c_t = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * squash(g)
    return sigmoid(o + p_o * c_t) * show(c_t), c_t


def no_input_activation(params, state, x):
    return peephole(params, state, x, squash=lambda g: g)


def no_output_activation(params, state, x):
    return peephole(params, state, x, show=lambda c: c)


def no_input_gate(params, state, x):
    h, c = state
    f, g, o = blocks(affine(params, h, x), 3)
    p_f, p_o = peepholes(params, 2)
    c_t = sigmoid(f + p_f * c) * c + tanh(g)
    return sigmoid(o + p_o * c_t) * tanh(c_t), c_t


def no_forget_gate(params, state, x):
    h, c = state
    i, g, o = blocks(affine(params, h, x), 3)
    p_i, p_o = peepholes(params, 2)
    c_t = c + sigmoid(i + p_i * c) * tanh(g)
    return sigmoid(o + p_o * c_t) * tanh(c_t), c_t


def no_output_gate(params, state, x):
    h, c = state
    i, f, g = blocks(affine(params, h, x), 3)
    p_i, p_f = peepholes(params, 2)
    c_t = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * tanh(g)
    return tanh(c_t), c_t


def coupled_forget(params, state, x):
    h, c = state
    i, g, o = blocks(affine(params, h, x), 3)
    p_i, p_o = peepholes(params, 2)
    i_t = sigmoid(i + p_i * c)
    c_t = (1 - i_t) * c + i_t * tanh(g)
    return sigmoid(o + p_o * c_t) * tanh(c_t), c_t


def coupled_input(params, state, x):
    h, c = state
    f, g, o = blocks(affine(params, h, x), 3)
    p_f, p_o = peepholes(params, 2)
    f_t = sigmoid(f + p_f * c)
    c_t = f_t * c + (1 - f_t) * tanh(g)
    return sigmoid(o + p_o * c_t) * tanh(c_t), c_t


def full_gate_recurrence(params, state, x):
    h, c, *gates = state
    i, f, g, o = blocks(affine(params, h, x), 4)
    r_i, r_f, r_o = blocks(join(gates) @ params.R, 3)
    p_i, p_f, p_o = peepholes(params, 3)
    i_t = sigmoid(i + r_i + p_i * c)
    f_t = sigmoid(f + r_f + p_f * c)
    c_t = f_t * c + i_t * tanh(g)
    o_t = sigmoid(o + r_o + p_o * c_t)
    return o_t * tanh(c_t), c_t, i_t, f_t, o_t


def projected(params, state, x):
    """Sak et al. (2014)."""
    m_t, c_t = peephole(params, state, x)
    return m_t @ params.V, c_t


def layer_norm(params, state, x):
    """Ba et al. (2016), equations 20 to 22."""
    h, c = state
    z = params.gain_x * normalise(x @ params.W) + params.gain_h * normalise(h @ params.U)
    i, f, g, o = blocks(z + params.b, 4)
    c_t = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(params.gain_c * normalise(c_t) + params.bias_c), c_t


def general(params, state, x, *, f=sigmoid, g=tanh, h=tanh, bound=np.inf, coupled=False):
    """The LSTM operator of ONNX: its activations f, g, h, and a bound on what f and g see."""
    h_tm1, c = state
    i, forget, candidate, o = blocks(affine(params, h_tm1, x), 4)
    p_i, p_f, p_o = peepholes(params, 3)
    i_t = f(clip(i + p_i * c, bound))
    f_t = 1 - i_t if coupled else f(clip(forget + p_f * c, bound))
    c_t = f_t * c + i_t * g(clip(candidate, bound))
    return f(clip(o + p_o * c_t, bound)) * h(c_t), c_t


def elman(params, state, x):
    (h,) = state
    return (tanh(affine(params, h, x)),)


def gru(params, state, x):
    """Cho et al. (2014), with the reset gate behind the product, as cuDNN has it."""
    (h,) = state
    x_r, x_u, x_n = blocks(x @ params.W + params.b, 3)
    h_r, h_u, h_n = blocks(h @ params.U, 3)
    r, u = sigmoid(x_r + h_r), sigmoid(x_u + h_u)
    n = tanh(x_n + r * (h_n + params.b_n))
    return ((1 - u) * n + u * h,)


def slstm(params, state, x, forget=sigmoid):
    """Beck et al. (2024), equations 8 to 17; the first step of a sequence has n = 0."""
    h, c, n, m = state
    i, f, g, o = blocks(affine(params, h, x), 4)
    log_f = library(f).log(forget(f))
    m_t = library(f).where(n == 0, i, library(f).maximum(log_f + m, i))
    i_t, f_t = library(f).exp(i - m_t), library(f).exp(log_f + m - m_t)
    c_t, n_t = f_t * c + i_t * tanh(g), f_t * n + i_t
    return sigmoid(o) * c_t / n_t, c_t, n_t, m_t


def slstm_exponential_forget(params, state, x):
    return slstm(params, state, x, forget=lambda f: library(f).exp(f))


def lstm_backwards(params, state, x, d_state):
    """The derivative of `lstm` written out: from what d_state is by the new state to the old one.

    Returns:
      `(d_state, d_z)`, by the state before the step and by z = x W + h U + b.
    """
    (h, c), (d_h, d_c) = state, d_state
    z_i, z_f, z_g, z_o = blocks(affine(params, h, x), 4)
    i, f, g, o = sigmoid(z_i), sigmoid(z_f), tanh(z_g), sigmoid(z_o)
    shown = tanh(f * c + i * g)
    d_c = d_c + d_h * o * (1 - shown**2)
    d_i, d_f, d_g = d_c * g * i * (1 - i), d_c * c * f * (1 - f), d_c * i * (1 - g**2)
    d_z = join([d_i, d_f, d_g, d_h * shown * o * (1 - o)])
    return LSTMState(params.U @ d_z, d_c * f), d_z


# --- the table of cells


class Cell(NamedTuple):
    """A cell of jlstm and its equations.

    cell: jlstm's.
    init: draws its parameters.
    step: its equations.
    state: the class of its state.
    sizes: from its parameters to the sizes of the arrays in its state.
    """

    cell: Any
    init: Callable
    step: Callable
    state: Any = LSTMState
    sizes: Callable = lambda params: (params.U.shape[0],) * 2


def with_peepholes(step):
    name = step.__name__
    return Cell(getattr(cells, name), partial(getattr(cells, f"init_{name}"), peepholes=True), step)


def with_normaliser(step):
    cell = getattr(cells, step.__name__)
    return Cell(cell, cells.init_slstm, step, SLSTMState, lambda params: (params.U.shape[0],) * 4)


OPTIONS = Options(
    Activation("softsign"),
    Activation("scaled_tanh", 1.3, 0.7),
    Activation("leaky_relu", 0.2),
    clip=0.9,
)
optional = partial(
    general,
    f=softsign,
    g=lambda z: 1.3 * tanh(0.7 * z),
    h=lambda z: leaky_relu(z, 0.2),
    bound=0.9,
)

CELLS = {
    "lstm": Cell(cells.lstm, cells.init_lstm, lstm),
    "peephole": Cell(cells.peephole, cells.init_peephole, peephole),
    "coupled_forget": with_peepholes(coupled_forget),
    "coupled_input": with_peepholes(coupled_input),
    "no_input_gate": with_peepholes(no_input_gate),
    "no_forget_gate": with_peepholes(no_forget_gate),
    "no_forget_gate, 1997": Cell(cells.no_forget_gate, cells.init_no_forget_gate, no_forget_gate),
    "no_output_gate": with_peepholes(no_output_gate),
    "no_input_activation": with_peepholes(no_input_activation),
    "no_output_activation": with_peepholes(no_output_activation),
    "full_gate_recurrence": with_peepholes(full_gate_recurrence)._replace(
        state=FullGateState, sizes=lambda params: (params.U.shape[0],) * 5
    ),
    "projected": Cell(
        cells.projected,
        partial(cells.init_projected, projected_size=2, peepholes=True),
        projected,
        sizes=lambda params: params.V.shape[::-1],
    ),
    "layer_norm": Cell(cells.layer_norm, cells.init_layer_norm, layer_norm),
    "general": Cell(cells.general(OPTIONS), cells.init_peephole, optional),
    "elman": Cell(
        cells.elman, cells.init_elman, elman, RNNState, lambda params: params.U.shape[:1]
    ),
    "slstm": with_normaliser(slstm),
    "slstm_exponential_forget": with_normaliser(slstm_exponential_forget),
    "gru": Cell(cells.gru, cells.init_gru, gru, RNNState, lambda params: params.U.shape[:1]),
}


# --- sequences


class Noise(NamedTuple):
    """What was drawn for one direction of a layer, numbers or `[T, *B, H]`.

    keep: multiplies the h that U sees (recurrent dropout).
    hold: the weight of the old state in the new one, an `LSTMState` (zoneout).
    """

    keep: Any = 1.0
    hold: Any = LSTMState(*np.zeros((2, 1)))


def unroll(
    cell: Any,
    params,
    xs,
    state=None,
    *,
    initial_state=None,
    reset=None,
    mask=None,
    reverse=False,
    noise: Noise | None = None,
    nudges=None,
    return_states=False,
) -> tuple[Any, Any]:
    """The contract of `jlstm.unroll`, step by step and row by row.

    Args:
      cell: a name of `CELLS`, or a `Cell`.
      params, xs, state, initial_state, reset, mask, reverse, return_states: as in `jlstm.unroll`.
        Whether steps are masked and reset must be known, not traced.
      noise: noise that was drawn.
      nudges: is added to the state after each step, taken or skipped, `[T, *B, …]`; the gradient by
        it is the gradient by those states.

    Returns:
      `(final_state, ys)`, or `(final_state, states)`.
    """
    cell = CELLS[cell] if isinstance(cell, str) else cell
    params, xs, state, initial_state, noise = wide((params, xs, state, initial_state, noise))
    T, *B, _ = xs.shape
    rows = list(np.ndindex(*B))
    reset = np.zeros((T, *B), bool) if reset is None else np.asarray(reset)
    mask = np.ones((T, *B), bool) if mask is None else np.asarray(mask)
    if initial_state is None:
        zeros = library(params.U).zeros
        initial_state = cell.state(*(zeros(n, params.U.dtype) for n in cell.sizes(params)))
    begin = {row: in_row(initial_state, row) for row in rows}
    carried = dict(begin) if state is None else {row: in_row(state, row) for row in rows}

    states, ys = [], []
    for t in reversed(range(T)) if reverse else range(T):
        for row in rows:
            if reset[t][row] and not reverse:
                carried[row] = begin[row]
            if mask[t][row]:
                drawn = noise and at(noise, t, row)
                carried[row] = noisy_step(cell, params, carried[row], xs[t][row], drawn)
            if nudges is not None:
                moved = zip(carried[row], at(nudges, t, row), strict=True)
                carried[row] = cell.state(*(s + nudge for s, nudge in moved))
            states.append(carried[row])
            ys.append(carried[row][0] if mask[t][row] else 0 * carried[row][0])
            if reset[t][row] and reverse:
                carried[row] = begin[row]  # t, the first step of a sequence, is processed last

    def over_time(steps):
        both = stack(steps, (T, *B))
        return jax.tree.map(lambda leaf: leaf[::-1], both) if reverse else both

    final = stack([carried[row] for row in rows], tuple(B))
    return final, over_time(states if return_states else ys)


def noisy_step(cell, params, state, x, noise: Noise | None):
    """A step, between recurrent dropout and zoneout if there is noise."""
    if noise is None:
        return cell.state(*cell.step(params, state, x))
    new = cell.step(params, state._replace(h=state.h * noise.keep), x)
    mixed = zip(noise.hold, state, new, strict=True)
    return cell.state(*(held * old + (1 - held) * now for held, old, now in mixed))


def unroll_stack(
    cell: Any, params, xs, states=None, *, initial_states=None, noise=None, keep=None, **flags
) -> tuple[Any, Any]:
    """The contract of `jlstm.unroll_stack`: each layer reads the one below.

    Args:
      cell: a name of `CELLS`, or a tuple with one for each layer.
      params, xs, states, initial_states: as in `jlstm.unroll_stack`.
      noise: `Noise` that was drawn, in the form of `states`.
      keep: for each layer what its input is multiplied by (dropout between layers).
      **flags: `reset` and `mask`.
    """
    names = (cell,) * len(params) if isinstance(cell, str) else cell
    finals = []
    for k, (name, layer) in enumerate(zip(names, params, strict=True)):
        state, first, drawn = (each and each[k] for each in (states, initial_states, noise))
        xs = xs if keep is None else xs * keep[k]
        if not isinstance(layer, Bidirectional):
            options: dict[str, Any] = {"initial_state": first, "noise": drawn, **flags}
            final, xs = unroll(name, layer, xs, state, **options)
        else:
            both, ys = [], []
            for d, one in enumerate(layer):
                options = {"initial_state": first and first[d], "noise": drawn and drawn[d]}
                final, y = unroll(
                    name, one, xs, state and state[d], reverse=d == 1, **options, **flags
                )
                both.append(final)
                ys.append(y)
            final, xs = Bidirectional(*both), library(ys[0]).concatenate(ys, axis=-1)
        finals.append(final)
    return tuple(finals), xs


# --- trees of arrays


def wide(tree):
    """The tree with NumPy arrays in float64."""
    return jax.tree.map(lambda a: a if isinstance(a, jax.Array) else np.asarray(a, float), tree)


def in_row(state, row):
    """The state of a row; `[H]` is the state of every row."""
    return jax.tree.map(lambda leaf: leaf if leaf.ndim == 1 else leaf[row], state)


def at(tree, t, row):
    """The entries for a step of a row; a number is the entry for all."""
    return jax.tree.map(lambda leaf: leaf[t][row] if np.ndim(leaf) else leaf, tree)


def stack(trees, shape):
    """Trees side by side, with `shape` in front."""

    def of(*leaves):
        traced = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
        whole = library((traced or leaves)[0]).stack(leaves)
        return whole.reshape(*shape, *whole.shape[1:])

    return jax.tree.map(of, *trees)
