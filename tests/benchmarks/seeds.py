"""The gradients of many seeds at once: `over_seeds` beside `vmap` of its peers and a loop of torch.

Prints tables and writes them to DIR/tables.md, all numbers to DIR/results.json. About three
minutes; leave the machine alone while it runs.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from statistics import geometric_mean, median
from typing import NamedTuple

import numpy as np

from . import machine, tables
from .measure import Settings, add_compilation, load
from .processes import Workers, ask, start
from .ratios import value
from .shapes import Shape, draw

WORKER = f"{__package__}.seeds_worker"


class Seeds(NamedTuple):
    """S seeds of one shape."""

    S: int
    B: int
    T: int
    D: int
    H: int


SHAPES = {
    "many": Seeds(64, 16, 50, 8, 32),
    "tiny": Seeds(256, 32, 50, 2, 16),
    "wide": Seeds(16, 32, 64, 16, 64),
}
QUICK = {"quick": Seeds(5, 2, 3, 2, 3)}  # to see that it runs
VMAPS = ("scan", "linen", "equinox")
DEVICES = (1, 2, 4)


def main(arguments: list[str] | None = None):
    options = parse(arguments)
    results = run(options)
    os.makedirs(options.out, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results))
    (options.out / "tables.md").write_text(report(results))
    print(report(results), end="")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    prog = "python -m tests.benchmarks.seeds"
    form = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=form)
    add = parser.add_argument
    shapes = [*SHAPES, *QUICK]
    add("--shapes", nargs="+", choices=shapes, default=list(SHAPES), help="what is computed")
    peers = [*VMAPS, "torch"]
    add("--peers", nargs="+", choices=peers, default=peers, help="besides over_seeds")
    add("--rounds", type=int, default=5, help="how often every peer has its turn")
    add("--seconds", type=float, default=0.3, help="of one peer in one round")
    add("--out", type=Path, default=Path("build/benchmarks/seeds"), metavar="DIR", help="results")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> dict:
    settings = Settings(["gradient"], options.rounds, options.seconds)
    results = {"machine": machine.describe(), "settings": settings._asdict(), "shapes": {}}
    with tempfile.TemporaryDirectory() as folder:
        with start([*map(over_seeds, DEVICES), *options.peers], WORKER) as workers:
            for name in options.shapes:
                seeds = (SHAPES | QUICK)[name]
                print(f"{name}: {seeds}", file=sys.stderr)
                measured = measure(workers, seeds, settings, Path(folder))
                results["shapes"][name] = {"size": seeds, "peers": measured}
    return results


def over_seeds(devices: int) -> str:
    return f"over_seeds:{devices}"


def measure(workers: Workers, seeds: Seeds, settings: Settings, scratch: Path) -> dict:
    results = load(workers, draw_seeds(seeds), settings, scratch)
    accepted = [peer for peer, result in results.items() if not result["refused"]]
    for peer in accepted:
        add_compilation(results[peer], ask(workers, peer, "compile"))
    for k in range(settings.rounds):
        for peer in accepted[:: -1 if k % 2 else 1]:  # nobody always follows the same one
            answer = ask(workers, peer, "time", measure="gradient", seconds=settings.seconds)
            results[peer]["seconds"]["gradient"].append(answer["seconds"])
    return results


def draw_seeds(seeds: Seeds) -> dict[str, np.ndarray]:
    """Weights and data of every seed, `[S, …]`."""
    rng = np.random.default_rng(0)
    one = draw(Shape(*seeds[1:]))
    return {
        name: (rng.standard_normal((seeds.S, *array.shape)) * array.std()).astype(np.float32)
        for name, array in one.items()
    }


def report(results: dict) -> str:
    shapes = {name: Seeds(*entry["size"]) for name, entry in results["shapes"].items()}
    sizes = [[name, *map(str, seeds)] for name, seeds in shapes.items()]
    sections = {
        "Machine": machine.in_words(results["machine"]) + "\n",
        "Shapes": tables.table(["", *Seeds._fields], sizes),
        "Gradient: milliseconds, minimum [median]": tables.time_table(results, "gradient"),
        "Temporary memory, MB": tables.scaled_table(results, "memory", 1e-6),
        "The bar": bar_table(results),
        "Refused": tables.refusals(results),
    }
    return "\n".join(f"### {title}\n\n{text}" for title, text in sections.items())


def bar_table(results: dict) -> str:
    """`over_seeds` on a device a core over the best of the peers."""
    cores = max(d for d in DEVICES if d <= max(1, machine.cores() or 1))
    rows = []
    for words, quantity, peers, limit in (
        ("time, of the fastest `vmap`", "gradient", VMAPS, 0.25),
        ("time, of the loop of torch", "gradient", ("torch",), 0.3),
        ("temporary memory, of the best `vmap`", "memory", VMAPS, 0.3),
    ):
        for statistic in (min, median) if quantity == "gradient" else (min,):
            found = ratios(results, over_seeds(cores), quantity, peers, statistic)
            mean = geometric_mean(found) if all(found) and found else math.nan
            name = f"{words}, by {statistic.__name__}" if quantity == "gradient" else words
            met = "yes" if mean <= limit else "**no**" if mean > limit else "not measured"
            rows.append([name, *map(tables.number, found), f"{mean:.3g}", f"{limit}", met])
    header = [f"over_seeds on {cores}", *results["shapes"], "mean", "at most", "met"]
    return tables.table(header, rows)


def ratios(results, ours, quantity, peers, statistic) -> list[float]:
    """A number a shape, 0 where nothing was measured."""
    found = []
    for shape in results["shapes"]:
        own = value(results, shape, ours, quantity, statistic)
        theirs = [value(results, shape, peer, quantity, statistic) for peer in peers]
        best = min((t for t in theirs if t), default=None)
        found.append(own / best if own and best else 0.0)
    return found


if __name__ == "__main__":
    main()
