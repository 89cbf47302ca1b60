"""Every JAX transformation of `unroll` and `unroll_stack` agrees with that of plain loops."""

from functools import partial
from itertools import product

import jax
import pytest

from tests.helpers.comparisons import assert_close
from tests.helpers.transformations import TRANSFORMATIONS, vjp
from tests.helpers.unroll_cases import CASES

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

# Every transformation of the case that holds most of what the others hold, and of two more cases
# the transformations that compose the others; the slow suite has every pair.
COMPOSED = ["hvp, forward over reverse", "vmap over both", "grad through shard_map"]
FAST = {
    *product(TRANSFORMATIONS, ["reset, mask, reverse, chunk"]),
    *product(COMPOSED, ["learned initial state", "bidirectional"]),
}
PAIRS = [
    pytest.param(*pair, marks=[] if pair in FAST else [pytest.mark.slow], id=" of ".join(pair))
    for pair in product(TRANSFORMATIONS, CASES)
]


@pytest.mark.parametrize("transformation, case", PAIRS)
def test_agrees_with_plain_autodiff(transformation, case):
    ours, plain, draw = CASES[case]
    of_ours, of_plain = TRANSFORMATIONS[transformation]
    inputs, flags = draw()
    came = jax.jit(partial(of_ours, ours))(inputs, flags)
    assert_close(came, of_plain(plain, inputs, flags), tolerance=1e-10)


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[] if c == "no state" else [pytest.mark.slow]) for c in CASES]
)
def test_agrees_without_jit(case):
    ours, plain, draw = CASES[case]
    inputs, flags = draw()
    assert_close(vjp(ours, inputs, flags), vjp(plain, inputs, flags), tolerance=1e-10)
