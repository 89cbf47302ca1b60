"""Rounds of measurements of all peers at one shape, of those that compute what jlstm does."""

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .processes import Workers, ask
from .shapes import Shape, draw

TOLERANCE = 1e-4  # of the largest element of an array


class Settings(NamedTuple):
    """`seconds` is the time for one measure of one peer in one round."""

    measures: list[str]
    rounds: int
    seconds: float


def measure_shape(workers: Workers, shape: Shape, settings: Settings, scratch: Path) -> dict:
    """By peer: `differences`, `refused`, and if not refused the numbers of each round."""
    results = load(workers, draw(shape), settings, scratch)
    accepted = [peer for peer, result in results.items() if not result["refused"]]
    for k in range(settings.rounds):
        order = accepted[:: -1 if k % 2 else 1]  # nobody always follows the same one
        for peer in order:
            add_compilation(results[peer], ask(workers, peer, "compile"))
        for measure in settings.measures:
            for peer in order:
                if measure in results[peer]["seconds"]:
                    request = {"measure": measure, "seconds": settings.seconds}
                    answer = ask(workers, peer, "time", **request)
                    results[peer]["seconds"][measure].append(answer["seconds"])
    return results


def load(workers: Workers, arrays: dict[str, Any], settings: Settings, scratch: Path) -> dict:
    """Gives every peer the same arrays and compares what they make of them with the first's."""
    inputs = scratch / "inputs.npz"
    np.savez(inputs, **arrays)
    results = {}
    # Outputs and gradients are compared also when only one of them, or its `vmap`, is timed.
    wanted = ["forward", "gradient", *settings.measures]
    for peer in workers:
        outputs = scratch / f"{peer}.npz"
        request = {"inputs": str(inputs), "outputs": str(outputs), "measures": wanted}
        own = ask(workers, peer, "load", **request)["measures"]
        differences = compare(scratch / f"{next(iter(workers))}.npz", outputs)
        refused = reason(differences)
        if refused:
            print(f"  {peer} is refused: {refused}", file=sys.stderr)
        seconds = {measure: [] for measure in settings.measures if measure in own}
        results[peer] = {
            "differences": {k: d if math.isfinite(d) else None for k, d in differences.items()},
            "refused": refused,
            "seconds": seconds,
            "compile_seconds": [],
            "temp_bytes": None,
        }
    return results


def add_compilation(result: dict, answer: dict):
    if answer:
        result["compile_seconds"].append(answer["seconds"])
        result["temp_bytes"] = answer["temp_bytes"]


def compare(ours: Path, theirs: Path) -> dict[str, float]:
    """By array: the largest difference from jlstm's, over its largest element.

    What comes through `vmap` is held against jlstm's own without it.
    """
    with np.load(ours) as our_file, np.load(theirs) as their_file:
        return {
            name: difference(our_file[name.removeprefix("vmap_")], their_file[name])
            for name in their_file.files
        }


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(theirs - ours).max() / np.abs(ours).max())


def reason(differences: dict[str, float]) -> str | None:
    """Why a peer is not timed; NaN is a reason too."""
    wrong = [f"{name} by {d:.1e}" for name, d in differences.items() if not d <= TOLERANCE]
    return f"differs from jlstm in {', '.join(wrong)}" if wrong else None
