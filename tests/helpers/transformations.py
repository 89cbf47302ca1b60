"""Every JAX transformation, of a function `(inputs, flags)` as `cases` has them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tests.helpers.draws import draw_array
from tests.helpers.unroll_cases import B, Flags, Inputs, batch_axes


def tangent(tree, seed=7):
    """A random tree like `tree`."""
    leaves, structure = jax.tree.flatten(tree)
    drawn = [draw_array((seed, k), leaf.shape, leaf.dtype) for k, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


def dot(a, b):
    products = jax.tree.map(lambda x, y: (x * y).sum(), a, b)
    return jax.tree.reduce(jnp.add, products)


def loss(f):
    """A number that weighs every output and is curved in each."""

    def run(inputs, flags):
        outputs = f(inputs, flags)
        return dot(jax.tree.map(jnp.sin, outputs), tangent(outputs, seed=8))

    return run


def vjp(f, inputs, flags):
    outputs, pullback = jax.vjp(lambda inputs: f(inputs, flags), inputs)
    return outputs, pullback(tangent(outputs))


def jvp(f, inputs, flags):
    return jax.jvp(lambda inputs: f(inputs, flags), (inputs,), (tangent(inputs),))


def linearize(f, inputs, flags):
    outputs, pushforward = jax.linearize(lambda inputs: f(inputs, flags), inputs)
    return outputs, pushforward(tangent(inputs)), pushforward(tangent(inputs, seed=9))


def forward_over_reverse(f, inputs, flags):
    gradient = jax.grad(loss(f))
    return jax.jvp(lambda inputs: gradient(inputs, flags), (inputs,), (tangent(inputs),))


def reverse_over_reverse(f, inputs, flags):
    gradient = jax.grad(loss(f))
    return jax.grad(lambda inputs: dot(gradient(inputs, flags), tangent(inputs)))(inputs)


def reverse_over_forward(f, inputs, flags):
    return jax.grad(lambda inputs: dot(*2 * (jvp(loss(f), inputs, flags)[1],)))(inputs)


def vmap_over_params(f, inputs, flags):
    several = jax.tree.map(lambda p: jnp.stack([p, 0.5 * p, -p]), inputs.params)
    run = jax.vmap(f, (Inputs(0, None, None, None), None))
    return run(inputs._replace(params=several), flags)


def vmap_over_sequences(f, inputs, flags):
    return jax.vmap(f, (batch_axes(inputs), 1), (0, 1))(inputs, flags)


def vmap_over_both(f, inputs, flags):
    return vmap_over_params(jax.vmap(f, (batch_axes(inputs), 1), (0, 1)), inputs, flags)


def gradient_of_each_sequence(f, inputs, flags):
    return jax.vmap(jax.grad(loss(f)), (batch_axes(inputs), 1))(inputs, flags)


def gradient_through_checkpoint(f, inputs, flags):
    return jax.grad(loss(jax.checkpoint(f)))(inputs, flags)


def scan_of_rollouts(f, inputs, flags):
    """Three rollouts, each fed the final state of the one before, as a scan over them."""

    def rollout(state, scale):
        return f(inputs._replace(xs=scale * inputs.xs, state=state), flags)

    state = f(inputs, flags)[0]
    return jax.lax.scan(rollout, state, jnp.array([0.5, 2.0, -1.0]))


def gradient_through_scan(f, inputs, flags):
    def run(inputs, flags):
        return scan_of_rollouts(f, inputs, flags)

    return jax.grad(loss(run))(inputs, flags)


def sharded(f, inputs, flags):
    """`f` with one row of the batch on each of four devices."""
    mesh = Mesh(np.array(jax.devices("cpu")[:B]), ("rows",))
    spec = {0: P("rows"), 1: P(None, "rows"), None: P()}
    axes = batch_axes(inputs)
    states = jax.tree.map(
        lambda leaf: spec[0 if leaf.ndim == 2 else None], (inputs.state, inputs.initial_state)
    )
    in_specs = Inputs(spec[axes.params], spec[axes.xs], *states), Flags(spec[1], spec[1])
    return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=(spec[0], spec[1]))


def shard_map(f, inputs, flags):
    return sharded(f, inputs, flags)(inputs, flags)


def gradient_through_shard_map(f, inputs, flags):
    return jax.grad(loss(sharded(f, inputs, flags)))(inputs, flags)


def as_it_is(f, inputs, flags):
    return f(inputs, flags)


# What is applied to ours, and what to the plain loops: the same, or what it should come to.
TRANSFORMATIONS = {
    "jit": (as_it_is, as_it_is),
    "grad": (lambda f, *args: jax.grad(loss(f))(*args),) * 2,
    "value_and_grad": (lambda f, *args: jax.value_and_grad(loss(f))(*args),) * 2,
    "vjp": (vjp, vjp),
    "jvp": (jvp, jvp),
    "jacfwd": (lambda f, *args: jax.jacfwd(f)(*args),) * 2,
    "jacrev": (
        lambda f, *args: jax.jacrev(f)(*args),
        lambda f, *args: jax.jacfwd(f)(*args),
    ),
    "hessian": (lambda f, *args: jax.hessian(loss(f))(*args),) * 2,
    "hvp, forward over reverse": (forward_over_reverse, forward_over_reverse),
    "hvp, reverse over reverse": (reverse_over_reverse, lambda *a: forward_over_reverse(*a)[1]),
    "reverse over forward": (reverse_over_forward, reverse_over_forward),
    "linearize": (linearize, linearize),
    "vmap over params": (vmap_over_params, vmap_over_params),
    "vmap over sequences": (vmap_over_sequences, as_it_is),
    "vmap over both": (vmap_over_both, vmap_over_params),
    "vmap of grad": (gradient_of_each_sequence, gradient_of_each_sequence),
    "checkpoint": (gradient_through_checkpoint, lambda f, *args: jax.grad(loss(f))(*args)),
    "scan": (scan_of_rollouts, scan_of_rollouts),
    "grad through scan": (gradient_through_scan, gradient_through_scan),
    "shard_map": (shard_map, as_it_is),
    "grad through shard_map": (
        gradient_through_shard_map,
        lambda f, *args: jax.grad(loss(f))(*args),
    ),
}
