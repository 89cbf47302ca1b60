"""Stacks to compare: layers of one size, in one direction or both, with states to carry in."""

import jax.numpy as jnp
from draws import draw_params, draw_state

import jlstm


def draw_stack(bidirectional: bool, depth: int, D: int, H: int, batch_shape: tuple[int, ...]):
    """The layers and the states of a stack, float64, in the form that `unroll_stack` takes."""
    directions = 2 if bidirectional else 1
    layers, states = [], []
    for k in range(depth):
        input_size = D if k == 0 else directions * H
        seeds = [10 * k + d for d in range(directions)]
        params = [draw_params(seed, input_size, H, jnp.float64) for seed in seeds]
        carried = [draw_state(seed, (*batch_shape, H), jnp.float64) for seed in seeds]
        layers.append(jlstm.Bidirectional(*params) if bidirectional else params[0])
        states.append(jlstm.Bidirectional(*carried) if bidirectional else carried[0])
    return tuple(layers), tuple(states)
