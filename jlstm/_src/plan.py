"""How `unroll` runs: choices by static shape for speed and memory. Results differ by rounding."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
from jax.ad_checkpoint import checkpoint_name

from jlstm._src.checks import check_choice, check_size, describe
from jlstm._src.modules import set_module


@set_module("jlstm")
@dataclass(frozen=True)
class Plan:
    """Choices of speed and memory for a cell that the derivative rule serves.

    hoist: computes `x W + b` for all t in one product instead of one product a step.
    product: the form of the products of a step. "rows" is `x W + h U`, with a row of z for each
      row of the batch; "joined" is `[x, h] [W; U]`, one product instead of two; "columns" is
      `(Wᵀ xᵀ + Uᵀ hᵀ)ᵀ`, which reads weights larger than the caches in the order of memory.
    chunk: the length of the time chunks that the reverse pass recomputes; None saves everything.
    keep: what a chunk saves. None saves nothing. "states" saves the state before each step, from
      which every z is recomputed in one product. "z" saves the preactivations, from which the
      chunk is recomputed without a product.
    """

    hoist: bool = False
    product: Literal["rows", "joined", "columns"] = "rows"
    chunk: int | None = None
    keep: Literal["states", "z"] | None = None


@set_module("jlstm")
def plan_for(T: int, B: int, D: int, H: int, gates: int = 4) -> Plan:
    """The plan that `unroll` uses by default for T steps of B rows.

    `gates` is the number of blocks of the weights, 4 for the standard cell.

    `hoist` reads the weights of the input once instead of at each step. It pays up to 16 rows if
    weights are large. "columns" reads weights of 4 MB or more in the order of memory, and pays up
    to 64 rows. "joined" has the overhead of one product instead of two, and pays if weights are
    small. None of these choices may depend on T, or a run split in two would round differently.

    Below 32 MB of intermediates the reverse pass saves them all. Above that size, memory is mapped
    anew at each call, and the page faults cost about as much as recomputing a chunk: from the
    states, in one product, for a narrow cell; from z for a wide one, where the product costs more.
    A chunk is five steps, or as many as have 80,000 states, which fit a cache together with their
    derivatives. It is shortened if T then divides, so that no remainder is compiled apart. But
    each chunk adds to the gradient of the weights; where these are the larger, nothing is
    recomputed.

    The guide to speed, docs/speed.md, has the measurements behind each choice.

    >>> plan_for(T=100, B=256, D=32, H=64)
    Plan(hoist=False, product='joined', chunk=5, keep='states')
    """
    hoist = B <= 16 and D * H >= 1024
    if B <= 64 and gates * H * H >= 2**20:
        product = "columns"
    elif D + H <= 128 and not hoist:
        product = "joined"
    else:
        product = "rows"
    # Bytes in float32: what a gradient without chunks holds at once, and what its chunks add up.
    kept = (2 * gates + 5 + gates * hoist) * T * B * H * 4
    weights = gates * H * (D + H) * 4
    longest = max(5, 80_000 // max(B * H, 1))
    chunk = next((k for k in range(longest, longest // 2, -1) if T % k == 0), longest)
    if kept < 32 * 2**20 or T // chunk * weights > 2 * kept:
        return Plan(hoist, product)
    return Plan(hoist, product, chunk, keep="states" if D + H <= 512 else "z")


def with_chunk(plan: Plan, chunk: int | None | Literal["auto"]) -> Plan:
    """The plan with the caller's chunk, which recomputes everything; "auto" keeps the plan's."""
    return plan if chunk == "auto" else replace(plan, chunk=chunk, keep=None)


# What a chunk can save, by the names that the policies of `jax.checkpoint` know.
_SAVED = {"states": "jlstm states", "z": "jlstm preactivation"}


def save_as(what: Literal["states", "z"], tree: Any) -> Any:
    """Marks what a chunk saves under a plan with that `keep`."""
    return checkpoint_name(tree, _SAVED[what])


def checkpoint_policy(plan: Plan) -> Callable[..., bool] | None:
    """The policy of `jax.checkpoint` for a chunk; None saves nothing."""
    keep = plan.keep
    return jax.checkpoint_policies.save_only_these_names(_SAVED[keep]) if keep else None


def check_plan(plan: Plan | None) -> None:
    """Checks that `plan` is None, or a Plan whose fields have valid values."""
    if plan is None:
        return
    if not isinstance(plan, Plan):
        raise TypeError(f"plan: expected a Plan or None, got {describe(plan)}")
    check_choice("plan.product", plan.product, ("rows", "joined", "columns"))
    if plan.chunk is not None:
        check_size("plan.chunk", plan.chunk)
    if plan.keep is not None:
        check_choice("plan.keep", plan.keep, ("states", "z"))
