"""What the tests compute with: irregular parameters, states and sequences, drawn in NumPy.

No two gates share a value and no bias is zero, so that no swapped gate can hide. Arrays have the
dtype that is asked for under every setting of JAX; float64 needs the fixture `x64`.
"""

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jlstm import Bidirectional, LSTMParams, LSTMState

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 4)
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
