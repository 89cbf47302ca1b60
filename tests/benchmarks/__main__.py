"""Times jlstm beside its peers, a process each, one computing at a time, in alternated rounds."""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from . import machine
from .measure import Settings, measure_shape
from .peers import JAX_PEERS
from .pictures import plot_growth, plot_times
from .processes import start
from .report import report
from .scaling import PEERS, measure_growth
from .shapes import MEASURES, SHAPES

ALL_PEERS = [*JAX_PEERS, *(f"{peer}:2" for peer in JAX_PEERS if peer != "swapped"), "torch"]
DEFAULT_PEERS = [peer for peer in ALL_PEERS if peer != "swapped"]


def main(arguments: list[str] | None = None):
    options = parse(arguments)
    if options.redraw:
        results = json.loads(options.redraw.read_text())
    else:
        results = rounded(run(options))  # so that the saved numbers give the same tables
    write(results, options.out)
    print(report(results), end="")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=f"{__doc__} A peer whose output or gradient differs from jlstm's on the same "
        "weights is refused. Prints tables and writes them to DIR/tables.md, all numbers to "
        "DIR/results.json, pictures to DIR/times.png and DIR/growth.png. Leave the machine alone "
        "while it runs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES), help="none: only --scaling")
    add("--peers", nargs="+", choices=ALL_PEERS, default=DEFAULT_PEERS, help="jlstm always runs")
    add("--measures", nargs="+", choices=MEASURES, default=list(MEASURES), help="what is timed")
    add("--rounds", type=positive, default=5, help="how often every peer has its turn")
    add("--seconds", type=float, default=0.25, help="of one measure of one peer in one round")
    add("--out", type=Path, default=Path("build/benchmarks"), metavar="DIR", help="for results")
    add("--scaling", action="store_true", help="also how the gradient grows with T, B and H")
    add("--scaling-most", type=positive, metavar="N", help="leave out sizes above this there")
    add("--redraw", type=Path, metavar="JSON", help="only draw the results of an earlier run")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return int(text)


def run(options: argparse.Namespace) -> dict:
    peers = ["jlstm", *(peer for peer in ALL_PEERS[1:] if peer in options.peers)]
    settings = Settings(options.measures, options.rounds, options.seconds)
    results = {"machine": machine.describe(), "settings": settings._asdict()}
    results |= {"shapes": {}, "scaling": None}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with start(peers if options.shapes else []) as workers:
            for name in SHAPES:
                if name in options.shapes:
                    print(f"{name}: {SHAPES[name]}", file=sys.stderr)
                    measured = measure_shape(workers, SHAPES[name], settings, scratch)
                    results["shapes"][name] = {"size": SHAPES[name], "peers": measured}
        if options.scaling:
            with start(list(PEERS)) as workers:
                most = options.scaling_most
                results["scaling"] = measure_growth(workers, settings, scratch, most)
    return results


def write(results: dict, out: Path):
    os.makedirs(out, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results))
    (out / "tables.md").write_text(report(results))
    if results["shapes"]:
        plot_times(results).savefig(out / "times.png", dpi=120)
    if results["scaling"]:
        plot_growth(results["scaling"]).savefig(out / "growth.png", dpi=120)


def rounded(tree):
    """The same with numbers of six digits, which is more than they are good for."""
    if isinstance(tree, dict):
        return {key: rounded(branch) for key, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return [rounded(branch) for branch in tree]
    return float(f"{tree:.6g}") if isinstance(tree, float) else tree


if __name__ == "__main__":
    main()
