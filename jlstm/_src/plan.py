"""Plans of `unroll`: choices by static shape for speed and memory. Results differ by rounding."""

from dataclasses import dataclass, replace
from typing import Literal

from jlstm._src.checks import check, check_bool, check_choice, check_size
from jlstm._src.modules import set_module

Chunk = int | None | Literal["auto"]
SAVED = {"states": "jlstm states", "z": "jlstm preactivation"}  # names for `jax.checkpoint`


@set_module("jlstm.plans")
@dataclass(frozen=True)
class Plan:
    """Choices of speed for the LSTM and every other cell made by `jlstm.cells.affine`.

    precompute: computes `x W + b` for all t in one product before the scan.
    product: the form of the products of a step. "rows" is `x W + h U`; "joined" is `[x, h] [W; U]`,
      one product instead of two, and excludes `precompute`; "columns" is `(Wᵀ xᵀ + Uᵀ hᵀ)ᵀ`, which
      reads weights larger than the caches in the order of memory.
    save: the arrays that a time chunk saves for the reverse pass, or None. "states" saves the state
      before each step, and recomputes every z in one product. "z" saves the preactivations, and
      recomputes the chunk without a product.
    derivative: "rule" is jlstm's derivative rule; "plain" is JAX's derivative of the scan, for
      comparison, and ignores the other choices.
    """

    precompute: bool = False
    product: Literal["rows", "joined", "columns"] = "rows"
    save: Literal["states", "z"] | None = None
    derivative: Literal["rule", "plain"] = "rule"


@set_module("jlstm.plans")
def plan_for(B: int, D: int, H: int, gates: int = 4, *, platform: str = "cpu") -> Plan:
    """Returns the default plan of `unroll` for B rows, and weights of `gates` blocks.

    It does not depend on T, so that a run split in two rounds as the whole. `precompute` reads the
    weights of the input once, and pays up to 16 rows if they are large, and for one row of up to 8
    units. "columns" pays up to 64 rows with weights of 4 MB or more, and "joined" with small
    weights. A chunk saves z for a wide cell, where the product that recomputes it costs more.

    These choices were measured on CPUs (docs/speed.md), and depend on their caches and page faults.
    On any other platform the plan is one product of all inputs, without measurements. `unroll` uses
    the platform of its arguments, or else of the default device. Pass `plan` to export for others.

    >>> import jlstm
    >>> jlstm.plans.plan_for(B=256, D=32, H=64)
    Plan(precompute=False, product='joined', save='states', derivative='rule')
    """
    _check_sizes(platform, B=B, D=D, H=H, gates=gates)
    if platform != "cpu":
        return Plan(precompute=True)
    precompute = (B <= 16 and D * H >= 1024) or (B == 1 and H <= 8)
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
    """Returns the length of the time chunks of `chunk="auto"` for T steps of B rows, or None.

    Below 32 MB of intermediates the reverse pass saves them all. Above that size each call maps
    memory anew, and the page faults cost about as much as recomputing a chunk. A chunk is five
    steps, or as many as have 80,000 states, which fit a cache together with their derivatives. It
    is shortened if T is then a multiple, so that no remainder is compiled. There are no chunks if
    the gradients of the weights, to which each chunk adds, are larger, or off the CPU.

    >>> import jlstm
    >>> jlstm.plans.chunk_for(T=100, B=256, D=32, H=64)
    5
    """
    _check_sizes(platform, T=T, B=B, D=D, H=H, gates=gates)
    if platform != "cpu":
        return None
    # Bytes in float32 of the intermediates without chunks, and of the gradients of the weights.
    held = (2 * gates + 5) * T * B * H * 4
    weights = gates * H * (D + H) * 4
    longest = max(5, 80_000 // max(B * H, 1))
    chunk = next((k for k in range(longest, longest // 2, -1) if T % k == 0), longest)
    return None if held < 32 * 2**20 or T // chunk * weights > 2 * held else chunk


def _check_sizes(platform, **sizes):
    for name, size in sizes.items():
        check_size(name, size, least=0)
    check(isinstance(platform, str), "platform", "the name of a platform", platform, TypeError)


def settle(
    plan: Plan | None, chunk: Chunk, T: int, B: int, D: int, H: int, gates: int, platform: str
) -> tuple[Plan, int | None]:
    """Returns the plan and the chunk of a run, with the defaults filled in."""
    if not all(isinstance(size, int) for size in (T, B, D, H)):  # symbolic sizes have no order
        plan = plan or Plan()
        chunk = None if chunk == "auto" else chunk
    length = chunk_for(T, B, D, H, gates, platform=platform) if chunk == "auto" else chunk
    chosen = plan or plan_for(B, D, H, gates, platform=platform)
    # For one row of few units, recomputing every z in one product pays without chunks, too.
    few = plan is None and B == 1 and H <= 16
    if (length is None and not few) or (plan is None and chunk != "auto"):
        chosen = replace(chosen, save=None)
    return chosen, length


def check_plan(plan: Plan | None) -> None:
    """Checks that `plan` is None, or a Plan with valid fields."""
    if plan is None:
        return
    check(isinstance(plan, Plan), "plan", "a Plan or None", plan, TypeError)
    check_bool("plan.precompute", plan.precompute)
    check_choice("plan.product", plan.product, ("rows", "joined", "columns"))
    if plan.precompute and plan.product == "joined":
        raise ValueError("plan.product: expected 'rows' or 'columns' to precompute, got 'joined'")
    if plan.save is not None:
        check_choice("plan.save", plan.save, ("states", "z"))
    check_choice("plan.derivative", plan.derivative, ("rule", "plain"))
