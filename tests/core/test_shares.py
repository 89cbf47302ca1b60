"""On a mesh whose axes shard the batch alone, each device runs its share, and the gradient of the
weights is summed once, after the loop, also in chunks.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jlstm
from jlstm import cells
from tests.helpers.draws import draw_array, draw_params

T, B, D, H = 12, 8, 2, 4


def loss(params, xs, **options):
    return (jlstm.unroll(params, xs, **options)[1] ** 2).sum()


def on_mesh(kind, *trees):
    """The mesh, and parameters and a batch on it."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
    params, *xs = trees
    placed = [jax.device_put(x, NamedSharding(mesh, P(None, "data"))) for x in xs]
    return mesh, jax.device_put(params, NamedSharding(mesh, P())), *placed


def reductions(compiled):
    """How many all-reduces stand outside of loops, and inside of their bodies."""
    text, computation, where = compiled.as_text(), "", {False: 0, True: 0}
    bodies = set(re.findall(r"body=%?([\w.\-]+)", text))
    for line in text.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            computation = header[1]
        elif re.search(r"all-reduce(-start)?\(", line):
            where[computation in bodies] += 1
    return where[False], where[True]


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("axes", ["explicit", "shard_map"])
def test_the_gradient_of_the_weights_is_summed_once_after_the_loop(axes, chunk):
    kind = AxisType.Explicit if axes == "explicit" else AxisType.Auto
    mesh, params, xs = on_mesh(kind, draw_params(1, D, H), draw_array(2, (T, B, D)))

    def whole(params, xs):
        if axes == "explicit":
            return loss(params, xs, chunk=chunk)

        def share(params, xs):
            return jax.lax.psum(loss(params, xs, chunk=chunk), "data")

        specs = {"in_specs": (P(), P(None, "data")), "out_specs": P()}
        return jax.shard_map(share, mesh=mesh, **specs)(params, xs)

    gradient = jax.jit(jax.grad(whole))
    if axes == "explicit":
        with jax.set_mesh(mesh):
            compiled = gradient.lower(params, xs).compile()
    else:
        compiled = gradient.lower(params, xs).compile()
    outside, inside = reductions(compiled)
    assert (outside >= 1, inside) == (True, 0)
    expected = jax.grad(loss)(*map(jax.device_get, (params, xs)))
    for ours, theirs in zip(compiled(params, xs), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_each_device_runs_the_plan_of_its_share():
    """The product of a step has the rows of one device."""
    mesh, params, xs = on_mesh(AxisType.Explicit, draw_params(1, D, H), draw_array(2, (T, B, D)))
    with jax.set_mesh(mesh):
        text = str(jax.make_jaxpr(jlstm.unroll)(params, xs))
    assert "shard_map" in text and f"[{T},{B // 2},{D}]" in text.replace("@data", "")


@pytest.mark.parametrize("name", ["lstm", "gru", "layer_norm"])
def test_flags_and_states_are_shared_out(name):
    """A state that is not sharded, a learned [H] state, resets and masks, in both directions."""
    cell, init = getattr(cells, name), getattr(cells, f"init_{name}")
    given = init(jax.random.key(0), D, H), draw_array(2, (T, B, D))
    flags = [np.asarray(jax.random.bernoulli(jax.random.key(k), 0.7, (T, B))) for k in (3, 4)]
    mesh, params, xs, reset, mask = on_mesh(AxisType.Explicit, *given, ~flags[0], flags[1])
    state = jax.tree.map(lambda s: s + 0.1, jlstm.zero_state(params, (B,), cell=cell))
    learned = jax.tree.map(lambda s: s[0] + 0.2, state)
    for reverse in (False, True):
        options = {"initial_state": learned, "reverse": reverse, "cell": cell}
        with jax.set_mesh(mesh):
            final, hs = jax.jit(
                lambda *flags, options=options: jlstm.unroll(
                    params, xs, state, reset=flags[0], mask=flags[1], **options
                )
            )(reset, mask)
        assert hs.sharding.spec[:2] == (None, "data")
        alone = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)), (params, xs, state))
        options |= {"reset": ~flags[0], "mask": flags[1]}
        expected = jlstm.unroll(*alone, **options)
        both = jax.tree.leaves((final, hs)), jax.tree.leaves(expected)
        for ours, theirs in zip(*both, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
