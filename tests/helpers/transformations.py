"""One table: every JAX transformation × every cell × what `unroll` and `unroll_stack` are told.

A case is a function of `(inputs, flags)` twice over, jlstm's and the oracle's. A transformation is
applied to jlstm's in one program; the oracle is transformed step by step, or gives what the
transformation should come to. All arrays are float64, so a test needs the fixture `x64`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import jlstm
from jlstm.plans import Plan
from tests.helpers import oracle
from tests.helpers.draws import draw_array, draw_carried, draw_like, draw_weights

T, B, D, H = 3, 4, 2, 3
F64 = jnp.float64

# Every row another pattern; among them a reset at 0, and both flags at one step.
RESET = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 0]], bool)
MASK = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [0, 1, 1, 0]], bool)


class Inputs(NamedTuple):
    """What a case is differentiated by."""

    params: Any
    xs: Any
    state: Any
    initial_state: Any


class Flags(NamedTuple):
    """What marks the steps of a case: bool `[T, B]`, or None."""

    reset: Any = None
    mask: Any = None


class Case(NamedTuple):
    """`(inputs, flags) -> (final states, outputs)` twice over, and both arguments."""

    ours: Callable
    oracle: Callable
    inputs: Inputs
    flags: Flags


# --- cases: a cell, and words that say what is told

ALL_IN_ONE = "reset, mask, reverse, chunk"
CASES = [
    "plain",
    "no state, reset, mask",
    "reset",
    "mask",
    "reverse",
    "chunk",
    ALL_IN_ONE,
    "learned initial state, reset",
    "stack, reset, mask",
    "bidirectional, reset, mask",
]


def make_plans() -> dict[str, dict[str, Any]]:
    """Every plan that differs in what is computed, by name: options of `unroll`."""
    by_rule = [
        (False, "rows", 3, "states"),
        (False, "rows", 2, "z"),
        (False, "joined", None, None),
        (False, "joined", 2, "states"),
        (False, "columns", 2, "z"),
        (True, "rows", None, None),
        (True, "rows", 2, None),
        (True, "columns", 2, "states"),
    ]
    plans: dict[str, Any] = {"plain derivative": {"plan": Plan(derivative="plain"), "chunk": 2}}
    for precompute, product, chunk, save in by_rule:
        name = f"{'precomputed ' * precompute}{product} by {chunk} saving {save}"
        plans[name] = {"plan": Plan(precompute, product, save), "chunk": chunk}
    return plans


PLANS = make_plans()


def make_case(cell: str, words: str, /, **options: Any) -> Case:
    """The case of a cell and of words in `CASES` and `PLANS`; options are jlstm's alone."""
    told = set(words.split(", "))
    flags = Flags(RESET if "reset" in told else None, MASK if "mask" in told else None)
    options |= {"chunk": 2} if "chunk" in told else {}
    for name in told & PLANS.keys():
        options |= PLANS[name]
    if told & {"stack", "bidirectional"}:
        inputs = draw_stack(cell, "bidirectional" in told)
        own = {"cell": oracle.CELLS[cell].cell, **options}
        return Case(partial(run_stack, own), partial(run_stack_of_oracle, cell), inputs, flags)
    both = {"reverse": "reverse" in told}
    own = {"cell": oracle.CELLS[cell].cell, **both, **options}
    return Case(partial(run, own), partial(run_oracle, cell, both), draw(cell, told), flags)


def run(options, inputs: Inputs, flags: Flags):
    params, xs, state, initial_state = inputs
    options = {"initial_state": initial_state, **flags._asdict(), **options}
    return jlstm.unroll(params, xs, state, **options)


def run_stack(options, inputs: Inputs, flags: Flags):
    params, xs, states, initial_states = inputs
    options = {"initial_states": initial_states, **flags._asdict(), **options}
    return jlstm.unroll_stack(params, xs, states, **options)


def run_oracle(cell, options, inputs: Inputs, flags: Flags):
    params, xs, state, initial_state = inputs
    options = {"initial_state": initial_state, **flags._asdict(), **options}
    return oracle.unroll(cell, params, xs, state, **options)


def run_stack_of_oracle(cell, inputs: Inputs, flags: Flags):
    params, xs, states, initial_states = inputs
    options = {"initial_states": initial_states, **flags._asdict()}
    return oracle.unroll_stack(cell, params, xs, states, **options)


def draw(cell: str, told: set) -> Inputs:
    """One layer; the initial state is `[H]` where it is learned, else `[B, H]`."""
    state, initial_state = (draw_carried(cell, (B,), seed) for seed in (3, 4))
    if "learned initial state" in told:
        state, initial_state = None, draw_carried(cell, (), 4)
    if "no state" in told:
        state = initial_state = None
    return Inputs(draw_weights(cell, 1), draw_array(2, (T, B, D), F64), state, initial_state)


def draw_stack(cell: str, bidirectional: bool) -> Inputs:
    """Two layers of different sizes, and a state and an initial state of each."""
    init, own = oracle.CELLS[cell].init, oracle.CELLS[cell].cell

    def shapes(key):
        params = jlstm.init_stack(key, D, (2, 3), bidirectional=bidirectional, init=init)
        return params, jlstm.zero_state(params, (B,), cell=own)

    params, states = jax.eval_shape(shapes, jax.random.key(0))
    carried = (draw_like(states, seed) for seed in (3, 4))
    return Inputs(draw_like(params, 1), draw_array(2, (T, B, D), F64), *carried)


# --- transformations of `f(inputs, flags)`


def draw_tangent(tree, seed=7):
    """A random tree like `tree`."""
    return draw_like(tree, seed, None)


def dot(a, b):
    products = jax.tree.map(lambda x, y: (x * y).sum(), a, b)
    return jax.tree.reduce(jnp.add, products)


def loss(f):
    """A number that weighs every output and is curved in each."""

    def run(inputs, flags):
        outputs = f(inputs, flags)
        return dot(jax.tree.map(jnp.sin, outputs), draw_tangent(outputs, seed=8))

    return run


def as_it_is(f, inputs, flags):
    return f(inputs, flags)


def gradient(f, inputs, flags):
    return jax.grad(loss(f))(inputs, flags)


def vjp(f, inputs, flags):
    outputs, pullback = jax.vjp(lambda inputs: f(inputs, flags), inputs)
    return outputs, pullback(draw_tangent(outputs))


def jvp(f, inputs, flags):
    return jax.jvp(lambda inputs: f(inputs, flags), (inputs,), (draw_tangent(inputs),))


def linearize(f, inputs, flags):
    outputs, pushforward = jax.linearize(lambda inputs: f(inputs, flags), inputs)
    return outputs, *(pushforward(draw_tangent(inputs, seed)) for seed in (7, 9))


def along(derivative, f, inputs):
    """A derivative by every input, times a random direction: the leaves of the product."""
    direction = jax.tree.leaves(draw_tangent(inputs))
    entries, n = jax.tree.leaves(derivative(f)(inputs)), len(direction)
    rows = [entries[k : k + n] for k in range(0, len(entries), n)]
    return [
        sum(jnp.tensordot(entry, d, d.ndim) for entry, d in zip(row, direction, strict=True))
        for row in rows
    ]


def jacobian(mode, f, inputs, flags):
    return along(mode, lambda at: f(at, flags), inputs)


def hessian(f, inputs, flags):
    return along(jax.hessian, lambda at: loss(f)(at, flags), inputs)


def slope(f, inputs, flags):
    return jvp(f, inputs, flags)[1]


def forward_over_reverse(f, inputs, flags):
    return jax.jvp(lambda at: gradient(f, at, flags), (inputs,), (draw_tangent(inputs),))[1]


def reverse_over_reverse(f, inputs, flags):
    return jax.grad(lambda at: dot(gradient(f, at, flags), draw_tangent(at)))(inputs)


def reverse_over_forward(f, inputs, flags):
    return jax.grad(lambda at: slope(loss(f), at, flags) ** 2)(inputs)


def twice_slope_times_hvp(f, inputs, flags):
    """The derivative of the square of a slope, by the chain rule."""
    twice = 2 * slope(loss(f), inputs, flags)
    return jax.tree.map(lambda leaf: twice * leaf, forward_over_reverse(f, inputs, flags))


def stack(trees, axis=0):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *trees)


SCALES = 1.0, 0.5, -1.0


def scaled(inputs, scale):
    return inputs._replace(params=jax.tree.map(lambda p: scale * p, inputs.params))


def vmap_over_params(f, inputs, flags):
    several = stack([scaled(inputs, scale).params for scale in SCALES])
    in_axes = Inputs(0, None, None, None), None
    return jax.vmap(f, in_axes)(inputs._replace(params=several), flags)


def loop_over_params(f, inputs, flags):
    return stack([f(scaled(inputs, scale), flags) for scale in SCALES])


def batch_axes(inputs: Inputs):
    """The axis of B in each array of `inputs`, None where it has none."""
    states = inputs.state, inputs.initial_state
    return Inputs(None, 1, *jax.tree.map(lambda leaf: 0 if leaf.ndim == 2 else None, states))


def vmap_over_sequences(f, inputs, flags, out_axes=(0, 1)):
    return jax.vmap(f, (batch_axes(inputs), 1), out_axes)(inputs, flags)


def vmap_over_both(f, inputs, flags):
    return vmap_over_params(partial(vmap_over_sequences, f), inputs, flags)


def gradient_of_each_sequence(f, inputs, flags):
    return vmap_over_sequences(partial(gradient, f), inputs, flags, out_axes=0)


def loop_of_gradients(f, inputs, flags):
    def of_row(k):
        row = Inputs(
            inputs.params, inputs.xs[:, k], *(oracle.in_row(leaf, k) for leaf in inputs[2:])
        )
        return gradient(f, row, Flags(*(flag[:, k] for flag in flags)))

    return stack([of_row(k) for k in range(B)])


def checkpoint(f, inputs, flags):
    return gradient(jax.checkpoint(f), inputs, flags)


ROLLOUTS = 0.5, 2.0, -1.0


def scan_of_rollouts(f, inputs, flags):
    """Three rollouts, each fed the final state of the one before, as a scan over them."""

    def rollout(state, scale):
        return f(inputs._replace(xs=scale * inputs.xs, state=state), flags)

    return jax.lax.scan(rollout, f(inputs, flags)[0], jnp.array(ROLLOUTS))


def loop_of_rollouts(f, inputs, flags):
    state, outputs = f(inputs, flags)[0], []
    for scale in ROLLOUTS:
        state, ys = f(inputs._replace(xs=scale * inputs.xs, state=state), flags)
        outputs.append(ys)
    return state, jnp.stack(outputs)


def gradient_through(transformation, f, inputs, flags):
    return gradient(partial(transformation, f), inputs, flags)


def shard_map(f, inputs, flags):
    """`f` with one row of the batch on each of four devices."""
    mesh = Mesh(np.array(jax.devices("cpu")[:B]), ("rows",))
    spec = {0: P("rows"), 1: P(None, "rows"), None: P()}
    axes = jax.tree.map(spec.get, batch_axes(inputs), is_leaf=lambda axis: axis is None)
    in_specs = axes, Flags(spec[1], spec[1])
    run = jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=(spec[0], spec[1]))
    return run(inputs, flags)


# What is applied to jlstm's, and what to the oracle's.
TRANSFORMATIONS = {
    "jit": (as_it_is, as_it_is),
    "grad": (gradient, gradient),
    "value_and_grad": (lambda f, *at: jax.value_and_grad(loss(f))(*at),) * 2,
    "vjp": (vjp, vjp),
    "jvp": (jvp, jvp),
    "jacfwd": (partial(jacobian, jax.jacfwd), lambda *at: jax.tree.leaves(slope(*at))),
    "jacrev": (partial(jacobian, jax.jacrev), lambda *at: jax.tree.leaves(slope(*at))),
    "hessian": (hessian, lambda *at: jax.tree.leaves(forward_over_reverse(*at))),
    "hvp, forward over reverse": (forward_over_reverse, forward_over_reverse),
    "hvp, reverse over reverse": (reverse_over_reverse, forward_over_reverse),
    "reverse over forward": (reverse_over_forward, twice_slope_times_hvp),
    "linearize": (linearize, linearize),
    "vmap over params": (vmap_over_params, loop_over_params),
    "vmap over sequences": (vmap_over_sequences, as_it_is),
    "vmap over both": (vmap_over_both, loop_over_params),
    "vmap of grad": (gradient_of_each_sequence, loop_of_gradients),
    "checkpoint": (checkpoint, gradient),
    "scan": (scan_of_rollouts, loop_of_rollouts),
    "grad through scan": (
        partial(gradient_through, scan_of_rollouts),
        partial(gradient_through, loop_of_rollouts),
    ),
    "shard_map": (shard_map, as_it_is),
    "grad through shard_map": (partial(gradient_through, shard_map), gradient),
}
