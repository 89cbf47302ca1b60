"""Every variant beside its equations as the papers have them, in plain loops over time.

A step is written once, for NumPy and for jax.numpy: `step(m, params, state, x) -> state`, where m
is the module, arrays are float64 and gates are cut by hand. It shares no code with jlstm.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jlstm import LSTMState, cells
from jlstm.cells import Activation, Options
from tests.helpers.draws import draw_array

D, H, R = 2, 3, 2


class Variant(NamedTuple):
    """A cell, how to draw its parameters, its equations, and the sizes of its state."""

    cell: Any
    init: Callable
    step: Callable
    state: Any
    sizes: tuple[int, ...] = (H, H)


def sigmoid(m, z):
    return 1 / (1 + m.exp(-z))


def cut(m, array, k):
    size = array.shape[-1] // k
    return [array[..., j * size : (j + 1) * size] for j in range(k)]


def affine(m, params, h, x):
    z = x @ params.W + h @ params.U
    return z + m.broadcast_to(params.b, z.shape)


def look(m, params, k, c):
    """A function `(j, c) -> p_j c` of k peepholes, zero where there are none."""
    if params.P is None:
        return lambda j, c: m.zeros_like(c)
    return lambda j, c: m.broadcast_to(cut(m, params.P, k)[j], c.shape) * c


def four_gates(m, params, state, x, squash=None, show=None, i=None, f=None, o=None):
    """Greff et al. (2017), equations of the vanilla LSTM; a gate that is given replaces its own.

    i, f, o: None, or a number; the blocks and peepholes of such a gate are missing.
    """
    own = "".join(g for g, given in zip("ifgo", (i, f, None, o), strict=True) if given is None)
    h, c = state
    z = dict(zip(own, cut(m, affine(m, params, h, x), len(own)), strict=True))
    seeing = own.replace("g", "")
    peep = look(m, params, len(seeing), c)
    squash, show = squash or m.tanh, show or m.tanh
    if "i" in own:
        i = sigmoid(m, z["i"] + peep(seeing.index("i"), c))
    if "f" in own:
        f = sigmoid(m, z["f"] + peep(seeing.index("f"), c))
    if callable(i):
        i = i(f)
    if callable(f):
        f = f(i)
    c_t = f * c + i * squash(z["g"])
    if "o" in own:
        o = sigmoid(m, z["o"] + peep(seeing.index("o"), c_t))
    return o * show(c_t), c_t


def identity(a):
    return a


def complement(gate):
    return 1 - gate


def full_gate(m, params, state, x):
    h, c, i, f, o = state
    z_i, z_f, z_g, z_o = cut(m, affine(m, params, h, x), 4)
    rows = [cut(m, params.R[k * H : (k + 1) * H], 3) for k in range(3)]
    (ii, fi, oi), (if_, ff, of), (io, fo, oo) = zip(*rows, strict=True)
    peep = look(m, params, 3, c)
    i_t = sigmoid(m, z_i + i @ ii + f @ fi + o @ oi + peep(0, c))
    f_t = sigmoid(m, z_f + i @ if_ + f @ ff + o @ of + peep(1, c))
    c_t = f_t * c + i_t * m.tanh(z_g)
    o_t = sigmoid(m, z_o + i @ io + f @ fo + o @ oo + peep(2, c_t))
    return o_t * m.tanh(c_t), c_t, i_t, f_t, o_t


def projected(m, params, state, x):
    m_t, c_t = four_gates(m, params, state, x)
    return m_t @ params.V, c_t


def normal(m, a):
    mean = a.sum(-1, keepdims=True) / a.shape[-1]
    square = ((a - mean) ** 2).sum(-1, keepdims=True) / a.shape[-1]
    return (a - mean) / m.sqrt(square + 1e-5)


def layer_norm(m, params, state, x):
    h, c = state

    def row(vector, a):
        return m.broadcast_to(vector, a.shape)

    a, d = normal(m, x @ params.W), normal(m, h @ params.U)
    z = row(params.gain_x, a) * a + row(params.gain_h, d) * d + row(params.b, a)
    i, f, g, o = cut(m, z, 4)
    c_t = sigmoid(m, f) * c + sigmoid(m, i) * m.tanh(g)
    n = normal(m, c_t)
    return sigmoid(m, o) * m.tanh(row(params.gain_c, n) * n + row(params.bias_c, n)), c_t


def elman(m, params, state, x):
    return (m.tanh(affine(m, params, state[0], x)),)


def gru(m, params, state, x):
    (h,) = state
    (W_r, W_u, W_n), (U_r, U_u, U_n) = cut(m, params.W, 3), cut(m, params.U, 3)
    b_r, b_u, b_n = (m.broadcast_to(b, h.shape) for b in cut(m, params.b, 3))
    r = sigmoid(m, x @ W_r + h @ U_r + b_r)
    u = sigmoid(m, x @ W_u + h @ U_u + b_u)
    n = m.tanh(x @ W_n + b_n + r * (h @ U_n + m.broadcast_to(params.b_n, h.shape)))
    return ((1 - u) * n + u * h,)


def optional(m, params, state, x):
    """The ONNX operator with bounds of 0.9, gates of softsign, and two activations with options."""
    h, c = state
    z_i, z_f, z_g, z_o = cut(m, affine(m, params, h, x), 4)
    peep = look(m, params, 3, c)

    def softsign(a):
        a = m.clip(a, -0.9, 0.9)
        return a / (1 + abs(a))

    g = 1.3 * m.tanh(0.7 * m.clip(z_g, -0.9, 0.9))
    c_t = softsign(z_f + peep(1, c)) * c + softsign(z_i + peep(0, c)) * g
    return softsign(z_o + peep(2, c_t)) * m.where(c_t >= 0, c_t, 0.2 * c_t), c_t


OPTIONS = Options(
    Activation("softsign"),
    Activation("scaled_tanh", 1.3, 0.7),
    Activation("leaky_relu", 0.2),
    clip=0.9,
)


def gated(name, peepholes=True, **replaced):
    init = getattr(cells, f"init_{name}")
    step = partial(four_gates, **replaced)
    drawn = init if name == "peephole" else partial(init, peepholes=peepholes)
    return Variant(getattr(cells, name), drawn, step, LSTMState)


FAMILY = {
    "peephole": gated("peephole"),
    "coupled_forget": gated("coupled_forget", f=complement),
    "coupled_input": gated("coupled_input", i=complement),
    "no_input_gate": gated("no_input_gate", i=1),
    "no_forget_gate": gated("no_forget_gate", f=1),
    "no_forget_gate, 1997": gated("no_forget_gate", peepholes=False, f=1),
    "no_output_gate": gated("no_output_gate", o=1),
    "no_input_activation": gated("no_input_activation", squash=identity),
    "no_output_activation": gated("no_output_activation", show=identity),
    "full_gate_recurrence": Variant(
        cells.full_gate_recurrence,
        partial(cells.init_full_gate_recurrence, peepholes=True),
        full_gate,
        cells.FullGateState,
        (H,) * 5,
    ),
    "projected": Variant(
        cells.projected,
        partial(cells.init_projected, projected_size=R, peepholes=True),
        projected,
        LSTMState,
        (R, H),
    ),
    "layer_norm": Variant(cells.layer_norm, cells.init_layer_norm, layer_norm, LSTMState),
    "general": Variant(cells.general(OPTIONS), cells.init_peephole, optional, LSTMState),
    "elman": Variant(cells.elman, cells.init_elman, elman, cells.RNNState, (H,)),
    "gru": Variant(cells.gru, cells.init_gru, gru, cells.RNNState, (H,)),
}


def draw_like(tree, seed: int, dtype: Any = jnp.float64):
    """Irregular arrays in the place of those of `tree`, none zero."""
    leaves, structure = jax.tree.flatten(tree)
    drawn = [draw_array((seed, k), leaf.shape, dtype) for k, leaf in enumerate(leaves)]
    return structure.unflatten(drawn)


def draw_variant(name: str, seed: int = 0, dtype: Any = jnp.float64):
    """Irregular parameters of a variant."""
    params = jax.eval_shape(partial(FAMILY[name].init, input_size=D, hidden_size=H), _key())
    return draw_like(params, seed, dtype)


def draw_carried(name: str, batch_shape: tuple[int, ...], seed: int = 1, dtype: Any = jnp.float64):
    """An irregular state of a variant."""
    variant = FAMILY[name]
    shapes = [(*batch_shape, size) for size in variant.sizes]
    return variant.state(*(draw_array((seed, k), s, dtype) for k, s in enumerate(shapes)))


def plain(m, name, params, xs, state, initial_state, reset, mask, reverse=False):
    """The contract of `unroll` for a variant, step by step: `(final_state, hs)`."""
    variant, T = FAMILY[name], len(xs)

    def choose(flags, a, b):
        return tuple(m.where(flags[..., None], x, y) for x, y in zip(a, b, strict=True))

    hs: list = [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        if not reverse:
            state = choose(reset[t], initial_state, state)
        new = variant.step(m, params, state, xs[t])
        hs[t] = m.where(mask[t][..., None], new[0], 0)
        state = choose(mask[t], new, state)
        if reverse:
            state = choose(reset[t], initial_state, state)
    return variant.state(*state), m.stack(hs)


def as_numpy(tree):
    return jax.tree.map(np.asarray, tree)


def _key():
    return jax.random.key(0)
