"""How `unroll` runs: choices by static shape for speed and memory. Results differ by rounding."""

from dataclasses import dataclass, replace
from typing import Literal

from jlstm.checks import check_choice, check_size, describe


@dataclass(frozen=True)
class Plan:
    """The choices for one run of a cell that has the derivative rule.

    hoist: form `x W + b` for all t in one product, rather than step by step.
    product: how the products of a step are taken. "rows" is `x W + h U`, a row of z for each of the
      batch; "joined" is `[x, h] [W; U]`, one product in place of two; "columns" is
      `(Wᵀ xᵀ + Uᵀ hᵀ)ᵀ`, which reads weights that no cache holds in the order in which they lie.
    chunk: the length of the time chunks that the reverse pass computes again; None keeps all.
    keep: what is kept of a chunk. None is nothing; "states" is what each step saw, of which all z
      are formed again in one product; "z" are the preactivations, with which the chunk is run
      through again without a product.
    """

    hoist: bool = False
    product: Literal["rows", "joined", "columns"] = "rows"
    chunk: int | None = None
    keep: Literal["states", "z"] | None = None


def plan_for(T: int, B: int, D: int, H: int, gates: int = 4) -> Plan:
    """The plan that `unroll` follows where the caller has none, for T steps of B rows.

    `gates` is the number of blocks of the weights, 4 for the standard cell.

    Hoisted, the weights of the input are read once and not at each step, which pays where rows are
    few, up to 16, and weights many. By columns, weights of 4 MB or more are read as they lie, which
    pays up to 64 rows. Where weights are small, one product has less overhead than two. None of
    these must depend on T, or a run split in two would round otherwise.

    Below 32 MB of intermediates the reverse pass keeps them all. Above that, memory is mapped anew
    at each call, and its page faults cost about what computing a chunk again does: of a narrow cell
    z, in one product, of a wide one, where that costs more, the states. A chunk is five steps, or
    as many as have 80,000 states, which a cache holds with all that comes of them; rather fewer if
    T then divides, so that nothing is left over to be compiled apart. But each chunk adds to the
    gradient of the weights; where these are the larger, nothing is computed again.

    Gradients in milliseconds, float32, jax 0.10.2, two cores, the shapes those of the benchmarks,
    and long, of 3000 steps of 8 rows, with D 32 and H 64; minima of alternated runs, and in
    brackets the MB of temporary memory. On an AMD EPYC:

                           stream  small      long       rl   medium      large   wide
        Plan()                3.1    5.2            45 (85)  51 (55)  265 (146)   163
        hoist                 2.9    5.0  55 (104)                                144
        5 or 8, "states"                  49  (25)  31 (27)  48 (18)  330  (57)
        5 or 8, "z"                       65  (39)  44 (42)  48 (28)  287  (87)
        100, "states"                     34  (25)

    On an Intel Xeon, where "joined" and "columns" were tried; the last two lines are of the
    forward pass:

                                     rl   medium      large       wide
        Plan()                  65 (85)  75 (55)  352 (146)  267  (34)
        hoist                                     375 (210)  238  (50)
        "joined"                59 (85)  75 (57)
        "columns"                                 324 (147)  163  (37)
        hoist, "columns"                          347 (210)  167  (50)
        as planned              55 (27)  78 (19)  371  (85)  167  (50)
        forward, Plan()              13       29        113        112
        forward, as planned          11       29        102         62

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
    """The plan with the caller's chunk, which recomputes all; "auto" leaves it as it is."""
    return plan if chunk == "auto" else replace(plan, chunk=chunk, keep=None)


def check_plan(plan: Plan | None) -> None:
    """Refuses what is neither a plan nor None, and a plan with a chunk that is no length."""
    if plan is None:
        return
    if not isinstance(plan, Plan):
        raise TypeError(f"plan: expected a Plan or None, got {describe(plan)}")
    check_choice("plan.product", plan.product, ("rows", "joined", "columns"))
    if plan.chunk is not None:
        check_size("plan.chunk", plan.chunk)
    if plan.keep is not None:
        check_choice("plan.keep", plan.keep, ("states", "z"))
