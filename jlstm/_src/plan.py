"""How `unroll` runs: choices by static shape for speed and memory. Results differ by rounding."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
from jax.ad_checkpoint import checkpoint_name

from jlstm._src.checks import check_bool, check_choice, describe
from jlstm._src.modules import set_module

Chunk = int | None | Literal["auto"]


@set_module("jlstm.plans")
@dataclass(frozen=True)
class Plan:
    """Choices of speed for the LSTM and every other cell made by `jlstm.cells.affine`.

    precompute: computes `x W + b` for all t in one product before the scan.
    product: the form of the products of a step. "rows" is `x W + h U`; "joined" is `[x, h] [W; U]`,
      one product instead of two, and excludes `precompute`; "columns" is `(Wᵀ xᵀ + Uᵀ hᵀ)ᵀ`, which
      reads weights larger than the caches in the order of memory.
    save: what a time chunk saves for the reverse pass. None saves nothing. "states" saves the state
      before each step, from which every z is recomputed in one product. "z" saves the
      preactivations, from which the chunk is recomputed without a product.
    derivative: "rule" differentiates by jlstm's own rule; "plain" differentiates the scan as JAX
      does, for comparison, and ignores the other choices.
    """

    precompute: bool = False
    product: Literal["rows", "joined", "columns"] = "rows"
    save: Literal["states", "z"] | None = None
    derivative: Literal["rule", "plain"] = "rule"


@set_module("jlstm.plans")
def plan_for(B: int, D: int, H: int, gates: int = 4, *, platform: str = "cpu") -> Plan:
    """The plan that `unroll` uses by default for B rows.

    `gates` is the number of blocks of the weights, 4 for the LSTM. The plan does not depend on T,
    so that a run split in two rounds as the whole.

    `precompute` reads the weights of the input once, and pays up to 16 rows if they are large.
    "columns" pays up to 64 rows with weights of 4 MB or more, and "joined" with small weights. A
    chunk saves z for a wide cell, where the product that recomputes it costs more.

    All this was measured on CPUs, see docs/speed.md, and concerns their caches and page faults. On
    any other platform the plan is one product of all inputs, and nothing was measured. `unroll`
    reads the platform from its arguments, or else takes the default device's. A function that is
    exported for other platforms than the one it is traced on needs a `plan` of its own.

    >>> import jlstm
    >>> jlstm.plans.plan_for(B=256, D=32, H=64)
    Plan(precompute=False, product='joined', save='states', derivative='rule')
    """
    if platform != "cpu":
        return Plan(precompute=True)
    precompute = B <= 16 and D * H >= 1024
    if B <= 64 and gates * H * H >= 2**20:
        product = "columns"
    elif D + H <= 128 and not precompute:
        product = "joined"
    else:
        product = "rows"
    return Plan(precompute, product, save="states" if D + H <= 512 else "z")


@set_module("jlstm.plans")
def chunk_for(
    T: int, B: int, D: int, H: int, gates: int = 4, *, platform: str = "cpu"
) -> int | None:
    """The length of the time chunks of `chunk="auto"` for T steps of B rows; None has no chunks.

    Below 32 MB of intermediates the reverse pass saves them all. Above that size, memory is mapped
    anew at each call, and the page faults cost about as much as recomputing a chunk. A chunk is
    five steps, or as many as have 80,000 states, which fit a cache together with their derivatives.
    It is shortened if T then divides, so that no remainder is compiled apart. Nothing is recomputed
    where the gradients of the weights, to which each chunk adds, are larger, nor off the CPU.

    >>> import jlstm
    >>> jlstm.plans.chunk_for(T=100, B=256, D=32, H=64)
    5
    """
    if platform != "cpu":
        return None
    # Bytes in float32: what a gradient without chunks holds at once, and what its chunks add up.
    held = (2 * gates + 5) * T * B * H * 4
    weights = gates * H * (D + H) * 4
    longest = max(5, 80_000 // max(B * H, 1))
    chunk = next((k for k in range(longest, longest // 2, -1) if T % k == 0), longest)
    return None if held < 32 * 2**20 or T // chunk * weights > 2 * held else chunk


def settle(
    plan: Plan | None, chunk: Chunk, T: int, B: int, D: int, H: int, gates: int, platform: str
) -> tuple[Plan, int | None]:
    """The plan and the chunk of a run, with the defaults filled in.

    Your own chunk saves nothing, unless your own plan does. With symbolic sizes, which cannot be
    compared, each step is computed as the equations stand, and all is saved.
    """
    if not all(isinstance(size, int) for size in (T, B, D, H)):
        plan = plan or Plan()
        chunk = None if chunk == "auto" else chunk
    length = chunk_for(T, B, D, H, gates, platform=platform) if chunk == "auto" else chunk
    chosen = plan or plan_for(B, D, H, gates, platform=platform)
    if length is None or (plan is None and chunk != "auto"):
        chosen = replace(chosen, save=None)
    return chosen, length


_SAVED = {"states": "jlstm states", "z": "jlstm preactivation"}  # names for `jax.checkpoint`


def save_as(what: Literal["states", "z"], tree: Any) -> Any:
    """Marks what a chunk saves under a plan with that `save`."""
    return checkpoint_name(tree, _SAVED[what])


def checkpoint_policy(plan: Plan) -> Callable[..., bool] | None:
    """The policy of `jax.checkpoint` for a chunk; None saves nothing."""
    save = plan.save
    return jax.checkpoint_policies.save_only_these_names(_SAVED[save]) if save else None


def check_plan(plan: Plan | None) -> None:
    """Checks that `plan` is None, or a Plan whose fields have valid values."""
    if plan is None:
        return
    if not isinstance(plan, Plan):
        raise TypeError(f"plan: expected a Plan or None, got {describe(plan)}")
    check_bool("plan.precompute", plan.precompute)
    check_choice("plan.product", plan.product, ("rows", "joined", "columns"))
    if plan.precompute and plan.product == "joined":
        raise ValueError("plan.product: expected 'rows' or 'columns' to precompute, got 'joined'")
    if plan.save is not None:
        check_choice("plan.save", plan.save, ("states", "z"))
    check_choice("plan.derivative", plan.derivative, ("rule", "plain"))
