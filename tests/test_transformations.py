"""Every JAX transformation of `unroll` and `unroll_stack` agrees with that of plain loops."""

from functools import partial
from itertools import product

import jax
import pytest
from agreement import assert_close
from cases import CASES
from transformations import TRANSFORMATIONS, vjp

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

# A Hessian of two layers takes a minute to compile; its products with vectors do not.
SLOW = {("hessian", "stack"), ("hessian", "bidirectional")}
PAIRS = [
    pytest.param(*pair, marks=[pytest.mark.slow] if pair in SLOW else [], id=" of ".join(pair))
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
