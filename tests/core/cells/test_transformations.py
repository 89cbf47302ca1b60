"""Every JAX transformation of every variant agrees with that of its equations in plain loops."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import pytest

from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array
from tests.helpers.transformations import TRANSFORMATIONS
from tests.helpers.unroll_cases import B, Inputs, T, draw_flags
from tests.helpers.unroll_cases import ours as unroll
from tests.helpers.variants import FAMILY, D, draw_carried, draw_variant, plain

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

# What composes the others, and cells whose states and weights differ most; the slow suite has all.
COMPOSED = ["hvp, forward over reverse", "vmap over both", "grad through shard_map"]
SEVERAL = ["general", "full_gate_recurrence", "projected", "elman", "gru"]
FAST = {*product(COMPOSED, SEVERAL)}
PAIRS = [
    pytest.param(*pair, marks=[] if pair in FAST else [pytest.mark.slow], id=" of ".join(pair))
    for pair in product(TRANSFORMATIONS, FAMILY)
]


def draw(name):
    """Parameters, a sequence with resets and skipped steps, a state and another to begin from."""
    carried = [draw_carried(name, (B,), seed) for seed in (3, 4)]
    xs = draw_array(2, (T, B, D), jnp.float64)
    return Inputs(draw_variant(name), xs, *carried), draw_flags(reset=True, mask=True)


@pytest.mark.parametrize("transformation, name", PAIRS)
def test_agrees_with_the_equations(transformation, name):
    def equations(inputs, flags):
        return plain(jnp, name, *inputs, *flags, reverse=True)

    of_ours, of_plain = TRANSFORMATIONS[transformation]
    ours = partial(unroll, cell=FAMILY[name].cell, reverse=True, chunk=2)
    inputs, flags = draw(name)
    came = jax.jit(partial(of_ours, ours))(inputs, flags)
    assert_close(came, of_plain(equations, inputs, flags), tolerance=1e-10)
