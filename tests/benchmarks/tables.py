"""Markdown tables of times, ratios, memory and compile times."""

from collections.abc import Callable, Sequence
from statistics import median

from .ratios import JAX, mean_past_seed, ratios, value
from .shapes import MEASURES


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def number(x: float | None) -> str:
    """Three digits, and no exponents."""
    if x is None:
        return "–"
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:#.3g}"


def peers_of(results: dict) -> list[str]:
    return list(next(iter(results["shapes"].values()))["peers"])


def measures_of(results: dict) -> list[str]:
    return [measure for measure in MEASURES if measure in results["settings"]["measures"]]


def by_shape(results: dict, cell: Callable[[str, str], str]) -> str:
    """A line a peer, a column a shape; peers without a number have no line."""
    shapes = list(results["shapes"])
    rows = [[peer, *(cell(shape, peer) for shape in shapes)] for peer in peers_of(results)]
    return table(["", *shapes], [row for row in rows if set(row[1:]) != {"–"}])


def time_table(results: dict, measure: str) -> str:
    """Milliseconds: the minimum, and the median in brackets."""

    def cell(shape, peer):
        least = value(results, shape, peer, measure, min)
        middle = value(results, shape, peer, measure, median)
        if least is None or middle is None:
            return "–"
        return f"{number(1e3 * least)} [{number(1e3 * middle)}]"

    return by_shape(results, cell)


def scaled_table(results: dict, quantity: str, scale: float) -> str:
    def cell(shape, peer):
        found = value(results, shape, peer, quantity)
        return number(None if found is None else scale * found)

    return by_shape(results, cell)


def ratio_table(results: dict, quantity: str) -> str:
    """jlstm's number over the peer's, and the geometric mean over the shapes past `seed`."""
    shapes, peers = list(results["shapes"]), peers_of(results)
    against = {peer: [peer] for peer in peers if peer != "jlstm"}
    against["**fastest JAX peer**"] = [peer for peer in peers if peer in JAX]
    rows = []
    for name, group in against.items():
        found = ratios(results, quantity, group)
        if found:
            cells = [number(found.get(shape)) for shape in shapes]
            rows.append([name, *cells, number(mean_past_seed(found))])
    return table(["jlstm /", *shapes, "mean"], rows)


def refusals(results: dict) -> str:
    lines = [
        f"- {peer} at {shape}: {result['refused']}\n"
        for shape, entry in results["shapes"].items()
        for peer, result in entry["peers"].items()
        if result["refused"]
    ]
    return "".join(lines) or "None.\n"
