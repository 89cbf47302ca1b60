"""How `unroll` runs: choices by static shape for speed and memory. Results differ by rounding."""

from dataclasses import dataclass

from jlstm.checks import check_size, describe


@dataclass(frozen=True)
class Plan:
    """The choices for one run of the standard cell.

    hoist: form `x W + b` for all t in one product, rather than step by step. How it rounds then
      depends on T, so that a run split in two is no longer the whole bit for bit.
    chunk: the length of the time chunks that the reverse pass computes again; None keeps all.
    keep: in a chunk keep the preactivations z, so that only what is elementwise is computed again.
    """

    hoist: bool = False
    chunk: int | None = None
    keep: bool = False


def plan_for(T: int, B: int, D: int, H: int) -> Plan:
    """The plan that `unroll` follows where the caller has none, for T steps of B rows.

    Below 32 MB of intermediates the reverse pass keeps them all. Above that, memory is mapped anew
    at each call, and its page faults cost more than computing a narrow cell again; for a wide one
    only what is elementwise is computed again. Fastest gradients in milliseconds, float32, jax
    0.10.2, two cores, the shapes those of the benchmarks. Two rows together are one run:

        small, rl, medium, large    keeping all          6.0    76     63    293
                                    chunk=10             8.9    59     64    391
        medium, large               keeping all                       100    935
        (other work beside them)    chunk=16, keep=True                75    828

    >>> plan_for(T=100, B=256, D=32, H=64)
    Plan(hoist=False, chunk=16, keep=False)
    """
    kept = 12 * T * B * H * 4  # bytes, in float32: what a gradient without chunks holds at once
    if kept < 32 * 2**20:
        return Plan()
    return Plan(chunk=16, keep=D + H > 256)


def check_plan(plan: Plan | None) -> None:
    """Refuses what is neither a plan nor None, and a plan with a chunk that is no length."""
    if plan is None:
        return
    if not isinstance(plan, Plan):
        raise TypeError(f"plan: expected a Plan or None, got {describe(plan)}")
    if plan.chunk is not None:
        check_size("plan.chunk", plan.chunk)
