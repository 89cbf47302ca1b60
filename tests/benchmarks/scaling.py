"""How time and memory of a gradient grow with T, B and H, beside the floating-point bound.

The bound is the operations of the products alone over the rate of a large matrix product, measured
in the same run: what a gradient would take if it were nothing but one large product.
"""

import sys
from pathlib import Path

from .measure import Settings, measure_shape
from .processes import Workers, ask
from .shapes import SWEEPS, Shape, gradient_operations
from .tables import number, table

PEERS = ("jlstm", "scan")


def measure_growth(workers: Workers, settings: Settings, scratch: Path, most: int | None) -> dict:
    """`rate` in operations per second, and an entry a point; `most` bounds the varied size."""
    settings = settings._replace(measures=["gradient"])
    rate = ask(workers, "jlstm", "rate")["rate"]
    points = []
    for axis, sweep in SWEEPS.items():
        for shape in sweep:
            if most is not None and getattr(shape, axis) > most:
                continue
            print(f"{axis} = {getattr(shape, axis)}: {shape}", file=sys.stderr)
            peers = measure_shape(workers, shape, settings, scratch)
            points.append({"axis": axis, "size": shape, "peers": peers})
    return {"rate": rate, "points": points}


def bound_of(point: dict, rate: float) -> float:
    """Seconds."""
    return gradient_operations(Shape(*point["size"])) / rate


def time_of(point: dict, peer: str) -> float | None:
    rounds = point["peers"][peer]["seconds"]["gradient"]
    return min((seconds for one in rounds for seconds in one), default=None)


def memory_of(point: dict, peer: str) -> float | None:
    return point["peers"][peer]["temp_bytes"]


def scaling_table(growth: dict) -> str:
    header = ["", *Shape._fields, "jlstm ms", "scan ms", "bound ms", "jlstm MB", "scan MB"]
    rows = [row(point, growth["rate"]) for point in growth["points"]]
    rate = f"Matrix products: {number(growth['rate'] / 1e9)} GFLOP/s.\n\n"
    return rate + table(header, rows)


def row(point: dict, rate: float) -> list[str]:
    def scaled(x, scale):
        return number(None if x is None else x * scale)

    times = [scaled(time_of(point, peer), 1e3) for peer in PEERS]
    memory = [scaled(memory_of(point, peer), 1e-6) for peer in PEERS]
    bound = number(1e3 * bound_of(point, rate))
    return [point["axis"], *map(str, point["size"]), *times, bound, *memory]
