"""Every JAX transformation of `unroll` and `unroll_stack` agrees with that of the oracle."""

from functools import partial
from itertools import product

import jax
import pytest

import jlstm
from tests.helpers.comparisons import assert_close
from tests.helpers.oracle import CELLS
from tests.helpers.transformations import (
    ALL_IN_ONE,
    CASES,
    PLANS,
    TRANSFORMATIONS,
    make_case,
    vjp,
)

pytestmark = pytest.mark.usefixtures("x64")

COMPOSED = ["hvp, forward over reverse", "vmap over both", "grad through shard_map"]
PLANNED = [f"reset, mask, reverse, {plan}" for plan in PLANS]
# By default the standard cell has every transformation of the case that holds most of what the
# others hold, one transformation of every case and of every plan, and the one that folds into the
# batch of a stack. In the thorough tests, cells whose states and weights differ most share the
# transformations that compose the others; cells/test_family.py has the gradients of every cell.
SEVERAL = ["general", "full_gate_recurrence", "projected", "elman", "gru"]
FAST = {
    *product(TRANSFORMATIONS, ["lstm"], [ALL_IN_ONE]),
    *product(["vjp"], ["lstm"], CASES + PLANNED),
    *product(COMPOSED, ["lstm"], ["learned initial state, reset"]),
    ("vmap over both", "lstm", "bidirectional, reset, mask"),
}
THOROUGH = {
    *product(["vmap over both"], SEVERAL, [ALL_IN_ONE]),
    *product(["hvp, forward over reverse"], ["general", "gru"], [ALL_IN_ONE]),
    *product(["grad through shard_map"], ["elman", "projected"], [ALL_IN_ONE]),
}
# The slow suite has every pair: transformation and case, transformation and cell, cell and case.
ROWS = {
    *product(TRANSFORMATIONS, ["lstm"], CASES + PLANNED),
    *product(TRANSFORMATIONS, CELLS, [ALL_IN_ONE]),
    *product(["vjp"], CELLS, CASES),
}


def marks(row):
    if row in FAST:
        return ()
    return pytest.mark.thorough if row in THOROUGH else pytest.mark.slow


TABLE = [pytest.param(*row, marks=marks(row), id=" of ".join(row)) for row in sorted(ROWS)]


@pytest.mark.parametrize("transformation, cell, words", TABLE)
def test_agrees_with_the_oracle(transformation, cell, words):
    assert_agrees(transformation, make_case(cell, words))


@pytest.mark.slow
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
def test_a_cell_of_ones_own_agrees_too(transformation):
    assert_agrees(transformation, make_case("lstm", "reset", cell=lambda *at: jlstm.cell(*at)))


def assert_agrees(transformation, case):
    of_ours, of_oracle = TRANSFORMATIONS[transformation]
    came = jax.jit(partial(of_ours, case.ours))(case.inputs, case.flags)
    assert_close(came, of_oracle(case.oracle, case.inputs, case.flags), tolerance=1e-12)


@pytest.mark.parametrize(
    "words", [pytest.param(w, marks=[] if "no state" in w else [pytest.mark.slow]) for w in CASES]
)
def test_agrees_without_jit(words):
    case = make_case("lstm", words)
    came, expected = (vjp(f, case.inputs, case.flags) for f in (case.ours, case.oracle))
    assert_close(came, expected, tolerance=1e-12)
