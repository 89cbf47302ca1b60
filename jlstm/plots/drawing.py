"""Shared parts of the plots: panels, line styles, bands over seeds, marks."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))
BAND = {"alpha": 0.2, "linewidth": 0}  # around a line
FEW = 50  # points of a line that are marked one by one


def panels(width, height, rows=1, columns=1, *, dpi=120, **options) -> tuple[Figure, list[Axes]]:
    """Makes a figure with a grid of panels, row by row, which share the x axis."""
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False, **options).ravel()
    for axes in grid:
        axes.grid(color="0.9")
        axes.margins(x=0.01)
    return figure, list(grid)


def count(*axes: Axis) -> None:
    """Restricts the ticks of axes to whole numbers."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def styled(lines: Mapping[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yields lines by name with their styles, from dark to light and dashed, also for greyscale."""
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(lines)))
    for k, ((name, line), colour) in enumerate(zip(lines.items(), colours, strict=True)):
        dashes = DASHES[k % len(DASHES)]
        yield line, {"color": colour, "linestyle": dashes, "linewidth": 1.6, "label": name}


def mark_level(axes: Axes, y: float, label: str) -> None:
    """Draws a horizontal line with a label at its right end."""
    axes.axhline(y, color="0.4", linewidth=1)
    right, above = ("axes fraction", "data"), (-4, 3)
    axes.annotate(label, (1, y), above, right, "offset points", ha="right", color="0.3")
