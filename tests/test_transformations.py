"""Every JAX transformation of `unroll` and `unroll_stack` agrees with that of plain loops."""

from functools import partial
from itertools import product

import jax
import pytest
from agreement import assert_close
from cases import CASES
from transformations import TRANSFORMATIONS, vjp

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

# These hold all that the other cases hold one by one, which wait for the slow suite. There, too,
# are Hessians of two layers, which take a minute to compile; their products with vectors do not.
FAST = ("learned initial state", "reset, mask, reverse, chunk", "bidirectional")
PAIRS = [
    pytest.param(
        *pair,
        marks=[] if pair[1] in FAST and pair != ("hessian", "bidirectional") else pytest.mark.slow,
        id=" of ".join(pair),
    )
    for pair in product(TRANSFORMATIONS, CASES)
]


@pytest.mark.parametrize("transformation, case", PAIRS)
def test_agrees_with_plain_autodiff(transformation, case):
    ours, plain, draw = CASES[case]
    of_ours, of_plain = TRANSFORMATIONS[transformation]
    inputs, flags = draw()
    came = jax.jit(partial(of_ours, ours))(inputs, flags)
    assert_close(came, of_plain(plain, inputs, flags), tolerance=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_agrees_without_jit(case):
    ours, plain, draw = CASES[case]
    inputs, flags = draw()
    assert_close(vjp(ours, inputs, flags), vjp(plain, inputs, flags), tolerance=1e-10)
