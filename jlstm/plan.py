"""How `unroll` runs: choices by static shape for speed and memory. Results differ by rounding."""

from dataclasses import dataclass, replace
from typing import Literal

from jlstm.checks import check_choice, check_size, describe


@dataclass(frozen=True)
class Plan:
    """The choices for one run of a cell that has the derivative rule.

    hoist: form `x W + b` for all t in one product, rather than step by step.
    chunk: the length of the time chunks that the reverse pass computes again; None keeps all.
    keep: what is kept of a chunk. None is nothing; "states" is what each step saw, of which all z
      are formed again in one product; "z" are the preactivations, with which the chunk is run
      through again without a product.
    """

    hoist: bool = False
    chunk: int | None = None
    keep: Literal["states", "z"] | None = None


def plan_for(T: int, B: int, D: int, H: int, gates: int = 4) -> Plan:
    """The plan that `unroll` follows where the caller has none, for T steps of B rows.

    `gates` is the number of blocks of the weights, 4 for the standard cell.

    Hoisted, the weights of the input are read once and not at each step, which pays where rows are
    few, up to 16, and weights many. It must not depend on T, or a run split in two would round
    otherwise.

    Below 32 MB of intermediates the reverse pass keeps them all. Above that, memory is mapped anew
    at each call, and its page faults cost about what computing a chunk again does: of a narrow cell
    z, in one product, of a wide one, where that costs more, the states. A chunk is five steps, or
    as many as have 80,000 states, which a cache holds with all that comes of them; rather fewer if
    T then divides, so that nothing is left over to be compiled apart. But each chunk adds to the
    gradient of the weights; where these are the larger, nothing is computed again.

    Gradients in milliseconds, float32, jax 0.10.2, two cores, the shapes those of the benchmarks,
    and long, of 3000 steps of 8 rows, with D 32 and H 64; minima of alternated runs, and in
    brackets the MB of temporary memory:

                           stream  small      long       rl   medium      large   wide
        Plan()                3.1    5.2            45 (85)  51 (55)  265 (146)   163
        hoist                 2.9    5.0  55 (104)                                144
        5 or 8, "states"                  49  (25)  31 (27)  48 (18)  330  (57)
        5 or 8, "z"                       65  (39)  44 (42)  48 (28)  287  (87)
        100, "states"                     34  (25)

    >>> plan_for(T=100, B=256, D=32, H=64)
    Plan(hoist=False, chunk=5, keep='states')
    """
    hoist = B <= 16 and D * H >= 1024
    # Bytes in float32: what a gradient without chunks holds at once, and what its chunks add up.
    kept = (2 * gates + 5 + gates * hoist) * T * B * H * 4
    weights = gates * H * (D + H) * 4
    longest = max(5, 80_000 // max(B * H, 1))
    chunk = next((k for k in range(longest, longest // 2, -1) if T % k == 0), longest)
    if kept < 32 * 2**20 or T // chunk * weights > 2 * kept:
        return Plan(hoist)
    return Plan(hoist, chunk, keep="states" if D + H <= 512 else "z")


def with_chunk(plan: Plan, chunk: int | None | Literal["auto"]) -> Plan:
    """The plan with the caller's chunk, which recomputes all; "auto" leaves it as it is."""
    return plan if chunk == "auto" else replace(plan, chunk=chunk, keep=None)


def check_plan(plan: Plan | None) -> None:
    """Refuses what is neither a plan nor None, and a plan with a chunk that is no length."""
    if plan is None:
        return
    if not isinstance(plan, Plan):
        raise TypeError(f"plan: expected a Plan or None, got {describe(plan)}")
    if plan.chunk is not None:
        check_size("plan.chunk", plan.chunk)
    if plan.keep is not None:
        check_choice("plan.keep", plan.keep, ("states", "z"))
