"""What the tests compute with: irregular parameters, states and sequences, drawn in NumPy.

No two gates share a value and no bias is zero, so that no swapped gate can hide. Arrays have the
dtype that is asked for under every setting of JAX; float64 needs the fixture `x64`.
"""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jlstm import Bidirectional, LSTMParams, LSTMState
from tests.helpers.oracle import CELLS

seeds = st.integers(0, 2**32 - 1)
sizes = st.sampled_from([1, 3])  # few, as every new shape compiles
batch_shapes = st.sampled_from([(), (1,), (3,), (2, 3)])


def draw_array(seed, shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def draw_params(seed, input_size, hidden_size, dtype=jnp.float32):
    """`LSTMParams(W [D, 4H], U [H, 4H], b [4H])`, no bias zero."""
    shapes = (input_size, 4 * hidden_size), (hidden_size, 4 * hidden_size), (4 * hidden_size,)
    return LSTMParams(*(draw_array((seed, k), shape, dtype) for k, shape in enumerate(shapes)))


def draw_state(seed, shape, dtype=jnp.float32):
    """`LSTMState(h, c)`, both of `shape`, `[*B, H]`."""
    return LSTMState(draw_array((seed, 3), shape, dtype), draw_array((seed, 4), shape, dtype))


def draw_sequence(seed, shape, dtype=jnp.float32):
    """`xs`, `[T, *B, D]`."""
    return draw_array((seed, 5), shape, dtype)


def draw_like(tree, seed, dtype: Any = jnp.float64):
    """Arrays in the place of those of `tree`, none zero; `dtype=None` keeps their dtypes."""
    leaves, structure = jax.tree.flatten(tree)
    drawn = [
        draw_array((seed, k), leaf.shape, leaf.dtype if dtype is None else dtype)
        for k, leaf in enumerate(leaves)
    ]
    return structure.unflatten(drawn)


@cache
def shapes_of(cell: str, input_size: int, hidden_size: int):
    """The shapes of the parameters and of a row's state of a cell in `CELLS`."""
    init = partial(CELLS[cell].init, input_size=input_size, hidden_size=hidden_size)
    params = jax.eval_shape(init, jax.random.key(0))
    sizes = CELLS[cell].sizes(params)
    return params, CELLS[cell].state(*(jax.ShapeDtypeStruct((n,), jnp.float32) for n in sizes))


def draw_weights(cell: str, seed=0, dtype: Any = jnp.float64, sizes=(2, 3)):
    """The parameters of a cell in `CELLS`, by default of D = 2 inputs and H = 3 units."""
    return draw_like(shapes_of(cell, *sizes)[0], seed, dtype)


def draw_carried(cell: str, batch_shape: tuple[int, ...], seed=1, dtype: Any = jnp.float64):
    """The state of a cell in `CELLS` with H = 3 units, `[*B, H]` each of its arrays."""
    row = shapes_of(cell, 2, 3)[1]
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*batch_shape, *leaf.shape), dtype), row)
    return draw_like(like, seed, dtype)


def draw_stack(bidirectional: bool, depth: int, D: int, H: int, batch_shape: tuple[int, ...]):
    """The layers and the states of a stack, float64, in the form that `unroll_stack` takes."""
    directions = 2 if bidirectional else 1
    layers, states = [], []
    for k in range(depth):
        input_size = D if k == 0 else directions * H
        seeds = [10 * k + d for d in range(directions)]
        params = [draw_params(seed, input_size, H, jnp.float64) for seed in seeds]
        carried = [draw_state(seed, (*batch_shape, H), jnp.float64) for seed in seeds]
        layers.append(Bidirectional(*params) if bidirectional else params[0])
        states.append(Bidirectional(*carried) if bidirectional else carried[0])
    return tuple(layers), tuple(states)


def balanced(choices: dict[str, tuple], size: int) -> list[dict]:
    """Draws `size` settings, in which the choices of each option appear equally often.

    A pool of static settings is small, so that compiled programs are used again.
    """
    random = np.random.default_rng(size)
    columns = {
        name: [of[k % len(of)] for k in random.permutation(size)] for name, of in choices.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def temporary_memory(compiled) -> int:
    """The bytes that XLA plans for what a compiled program holds in between."""
    return compiled.memory_analysis().temp_size_in_bytes
