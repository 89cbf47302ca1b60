"""The pictures of a run; they can be read in greyscale."""

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from .ratios import value
from .scaling import PEERS, bound_of, memory_of, time_of
from .shapes import Shape
from .tables import peers_of

# From dark to light, so that neighbours differ without colours; hatches tell the rest apart.
BARS = (
    ("#14284f", ""),
    ("#3f6ea8", "//"),
    ("#7f9f7a", ""),
    ("#c2703d", "\\\\"),
    ("#d9b98c", ""),
    ("#efe6d5", ".."),
)
TICKS = (0.2, 0.5, 1, 2, 5, 10, 20, 50)


def plot_times(results: dict) -> Figure:
    """Each peer's time over jlstm's, by shape: bars above 1 are slower than jlstm.

    A cross stands for a peer that was not timed.
    """
    measures = [m for m in ("forward", "gradient") if m in results["settings"]["measures"]]
    figure = Figure(figsize=(9, 0.8 + 2.9 * len(measures)), layout="constrained")
    all_axes = figure.subplots(len(measures), 1, squeeze=False, sharey=True)[:, 0]
    for axes, measure in zip(all_axes, measures, strict=True):
        plot_measure(axes, results, measure)
    handles = [Patch(label=peer, **style) for peer, style in styles_of(results).items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    return figure


def styles_of(results: dict) -> dict[str, dict]:
    """How the bar of each peer is drawn."""
    peers = [peer for peer in peers_of(results) if peer not in ("jlstm", "swapped")]
    return {
        peer: {"facecolor": colour, "hatch": hatch, "edgecolor": "black", "linewidth": 0.6}
        for peer, (colour, hatch) in zip(peers, BARS, strict=False)
    }


def plot_measure(axes, results: dict, measure: str):
    shapes = list(results["shapes"])
    styles = styles_of(results)
    width = 0.85 / max(len(styles), 1)
    for k, (peer, style) in enumerate(styles.items()):
        for at, shape in enumerate(shapes):
            ours, theirs = (value(results, shape, p, measure) for p in ("jlstm", peer))
            x = at + (k - (len(styles) - 1) / 2) * width
            if not ours or not theirs:
                axes.text(x, 1, "×", ha="center", va="bottom")
                continue
            axes.bar(x, theirs / ours - 1, width, bottom=1, **style)
    axes.axhline(1, color="black", linewidth=1.2)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color="0.85", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xticks(range(len(shapes)), shapes)
    axes.set_ylabel(f"{measure}\ntime over jlstm's")


def plot_growth(growth: dict) -> Figure:
    """Milliseconds above, megabytes below, against T, B and H."""
    varied = list(dict.fromkeys(point["axis"] for point in growth["points"]))
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    grid = figure.subplots(2, len(varied), squeeze=False, sharex="col")
    for axis, (above, below) in zip(varied, grid.T, strict=True):
        points = [point for point in growth["points"] if point["axis"] == axis]
        sizes = [getattr(Shape(*point["size"]), axis) for point in points]
        for peer, style in zip(PEERS, ("-o", "--s"), strict=True):
            colour = {"color": "#14284f" if peer == "jlstm" else "#c2703d", "markersize": 4}
            times = [1e3 * (time_of(point, peer) or float("nan")) for point in points]
            memory = [1e-6 * (memory_of(point, peer) or float("nan")) for point in points]
            above.plot(sizes, times, style, label=peer, **colour)
            below.plot(sizes, memory, style, **colour)
        bounds = [1e3 * bound_of(point, growth["rate"]) for point in points]
        above.plot(sizes, bounds, ":", color="black", label="floating-point bound")
        below.set_xlabel(described(axis, points[0]))
        for axes in (above, below):
            axes.set(xscale="log", yscale="log")
            for line in (axes.xaxis, axes.yaxis):
                line.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,g}"))
                line.set_minor_formatter(NullFormatter())
            axes.grid(color="0.85", linewidth=0.6)
    grid[0, 0].set_ylabel("gradient, ms")
    grid[1, 0].set_ylabel("temporary memory, MB")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def described(axis: str, point: dict) -> str:
    """The size that varies, and what stays: D goes with H."""
    fixed = {k: n for k, n in Shape(*point["size"])._asdict().items() if k != axis}
    if axis == "H":
        del fixed["D"]
        axis = "H = D"
    return f"{axis}   ({', '.join(f'{k} {n}' for k, n in fixed.items())})"
