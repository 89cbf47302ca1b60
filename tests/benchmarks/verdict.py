"""The bar: what jlstm's speed and memory have to reach, and whether they do."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from .ratios import JAX, PAST_SEED, SCANS, mean_past_seed, ratios
from .shapes import SHAPES
from .tables import number, table


class Bar(NamedTuple):
    """jlstm's `quantity` over the best of the peers', of their `theirs` if given.

    `mean` bounds the geometric mean past `seed`, else each of `shapes` is bounded.
    """

    words: str
    quantity: str
    peers: Sequence[str]
    limit: float
    mean: bool = False
    shapes: Sequence[str] = tuple(SHAPES)
    theirs: str | None = None


TORCH = ("torch",)
BARS = (
    Bar("gradient, each shape, of the fastest JAX peer", "gradient", JAX, 1.0),
    Bar("gradient, mean, of the fastest JAX peer", "gradient", JAX, 0.5, True, PAST_SEED),
    Bar("gradient, each shape, of torch", "gradient", TORCH, 1.1),
    Bar("gradient, mean, of torch", "gradient", TORCH, 0.8, True, PAST_SEED),
    Bar("forward, mean, of the fastest JAX peer", "forward", JAX, 0.9, True, PAST_SEED),
    Bar("forward, mean, of torch", "forward", TORCH, 1.0, True, PAST_SEED),
    Bar(
        "temporary memory of the gradient, each of rl, medium, large, of the best JAX peer",
        "memory",
        SCANS,
        0.5,
        shapes=("rl", "medium", "large"),
    ),
    Bar(
        "temporary memory, of the checkpointed scan at equal chunks",
        "memory",
        ("remat",),
        1.0,
        shapes=("rl", "medium", "large"),
    ),
    Bar(
        "gradient through `vmap`, each shape, of batch dimensions",
        "vmap_gradient",
        ("jlstm",),
        1.1,
        theirs="gradient",
    ),
    Bar(
        "forward through `vmap`, each shape, of batch dimensions",
        "vmap_forward",
        ("jlstm",),
        1.1,
        theirs="forward",
    ),
    Bar("compile time of the gradient, each shape, of the scan", "compile", ("scan",), 1.5),
)


def verdict_table(results: dict) -> str:
    header = ["what", "at most", "by minima", "by medians", "met, by minima"]
    return table(header, [row(results, bar) for bar in BARS])


def row(results: dict, bar: Bar) -> list[str]:
    by_minima, by_medians = (
        {shape: ratio for shape, ratio in found.items() if shape in bar.shapes}
        for found in (
            ratios(results, bar.quantity, bar.peers, statistic, bar.theirs)
            for statistic in (min, median)
        )
    )
    return [
        bar.words,
        number(bar.limit),
        measured(bar, by_minima),
        measured(bar, by_medians),
        met(bar, by_minima),
    ]


def measured(bar: Bar, found: dict[str, float]) -> str:
    if not found:
        return "–"
    if bar.mean:
        return number(mean_past_seed(found))
    worst = max(found, key=lambda shape: found[shape])
    return f"{number(found[worst])} ({worst})"


def met(bar: Bar, found: dict[str, float]) -> str:
    """Missed where one shape is above it; met only where every shape that counts was measured."""
    missing = [shape for shape in bar.shapes if shape not in found]
    if bar.mean:
        missed = not missing and (mean_past_seed(found) or 0) > bar.limit
    else:
        missed = any(ratio > bar.limit for ratio in found.values())
    return "**no**" if missed else "not all measured" if missing else "yes"
