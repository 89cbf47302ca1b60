"""Numbers out of the results, and jlstm's over those of its peers: smaller is better.

A quantity is one of the measures, "compile" in seconds, or "memory" in bytes.
"""

from collections.abc import Callable, Sequence
from statistics import geometric_mean
from typing import Any

from .shapes import SHAPES

SCANS = ("linen", "nnx", "equinox", "haiku", "scan")  # with one device, nothing recomputed
JAX = (*SCANS, "remat", *(f"{peer}:2" for peer in (*SCANS, "remat")))
OURS = ("jlstm", "jlstm:2")
PAST_SEED = tuple(name for name in SHAPES if name != "seed")

Statistic = Callable[[Sequence[float]], float]


def value(
    results: dict, shape: str, peer: str, quantity: str, statistic: Statistic = min
) -> float | None:
    """One number over all calls of all rounds; None where nothing was measured."""
    result: dict[str, Any] = results["shapes"].get(shape, {}).get("peers", {}).get(peer, {})
    if quantity == "memory":
        return result.get("temp_bytes")
    if quantity == "compile":
        numbers = result.get("compile_seconds", [])
    else:
        rounds = result.get("seconds", {}).get(quantity, [])
        numbers = [seconds for one in rounds for seconds in one]
    return statistic(numbers) if numbers else None


def ratios(
    results: dict,
    quantity: str,
    peers: Sequence[str],
    statistic: Statistic = min,
    theirs: str | None = None,
) -> dict[str, float]:
    """By shape: jlstm's number over the smallest of the peers', each at its best number of devices.

    Theirs is of the same quantity, or of `theirs` if that is given.
    """
    found = {}
    for shape in results["shapes"]:
        mine = OURS if quantity in ("forward", "gradient") and theirs is None else OURS[:1]
        found_ours = [value(results, shape, name, quantity, statistic) for name in mine]
        ours = min((n for n in found_ours if n), default=None)
        numbers = [value(results, shape, peer, theirs or quantity, statistic) for peer in peers]
        best = min((n for n in numbers if n), default=None)
        if ours is not None and best is not None:
            found[shape] = ours / best
    return found


def mean_past_seed(numbers: dict[str, float]) -> float | None:
    """The geometric mean over the shapes past `seed`."""
    counted = [number for shape, number in numbers.items() if shape in PAST_SEED and number > 0]
    return geometric_mean(counted) if counted else None
