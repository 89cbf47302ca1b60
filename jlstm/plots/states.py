"""Plots of a network's states and gates over time."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jlstm.plots.drawing import FEW, count, panels, styled

LEGEND = 10  # units that a legend can tell apart
CROWD = 2000  # points of all lines that are easy to follow on common axes
BINS = 500  # points of a line that fit into the width of a figure
SHADES = ("#14284f", "#c2703d")  # for alternate units; they also differ in greyscale


def plot_states(H: np.ndarray, C: np.ndarray) -> Figure:
    """Plots the histories of the hidden and the cell state, one line a unit.

    A few short lines share one axis. Many or long lines are drawn above each other, each on its own
    zero line. Above 1,000 steps a line shows the mean over spans, in a band with their range.

    Args:
      H, C: `[T, H]`, hidden states and cell states.

    Raises:
      ValueError: the shapes are not `[T, H]`, differ, or have no step or no unit.

    >>> import jlstm.reference
    >>> figure = plot_states(*jlstm.reference.run(*jlstm.reference.draw()))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['hidden state h', 'cell state c']
    """
    H, C = np.asarray(H, np.float64), np.asarray(C, np.float64)
    if H.ndim != 2 or H.shape != C.shape or not H.size:
        got = f"{list(H.shape)} and {list(C.shape)}"
        raise ValueError(f"H, C: expected two histories [T, H] of one shape, got {got}")
    T, units = H.shape
    together = units <= LEGEND and T * units <= CROWD
    height = 5.0 if together else min(max(5.0, 0.3 * units), 14.0)
    span = -(-T // BINS) if T > 2 * BINS else 1  # steps behind one point of a line
    figure, (upper, lower) = panels(8, height, rows=2)
    for axes, states, label in ((upper, H, "hidden state h"), (lower, C, "cell state c")):
        axes.set_ylabel(label)
        if not together:
            _draw_apart(axes, states, span)
            continue
        for values, style in styled({str(unit): values for unit, values in enumerate(states.T)}):
            axes.plot(values, marker="o" if T <= FEW else None, markersize=3.5, **style)
    if together:
        figure.legend(handles=upper.get_lines(), title="unit", loc="outside right upper")
    lower.set_xlabel("step t" if span == 1 else f"step t (mean and range of every {span} steps)")
    count(lower.xaxis)
    return figure


def plot_gates(gates: Mapping[str, np.ndarray]) -> Figure:
    """Plots the gates, or other values of each unit, over time: a heat map each, a unit a row.

    Shades go from dark at 0 to light at 1; for values outside, from blue to red, with white at 0.

    Args:
      gates: `[T, H]` by name, after the activations: σ(i), σ(f), tanh(g), σ(o).

    Raises:
      ValueError: `gates` or an array is empty, or the shapes are not `[T, H]`, or differ.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> xs = jax.random.normal(jax.random.key(1), (10, 2))
    >>> _, states = jlstm.unroll(params, xs, return_states=True)
    >>> h_tm1 = jax.numpy.concatenate([jax.numpy.zeros((1, 3)), states.h[:-1]])
    >>> z = jlstm.cells.preactivation(params, xs, h_tm1)      # all steps at once
    >>> i, f, g, o = jax.numpy.split(z, 4, axis=-1)
    >>> figure = plot_gates({"input gate i": jax.nn.sigmoid(i), "candidate g": jax.numpy.tanh(g)})
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['input gate i', 'candidate g']
    """
    arrays = {name: np.asarray(gate, np.float64) for name, gate in gates.items()}
    shapes = [array.shape for array in arrays.values()]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        got = ", ".join(str(list(shape)) for shape in shapes) or "none"
        raise ValueError(f"gates: expected arrays [T, H] of one shape, got {got}")
    figure = Figure(figsize=(max(3.0, 1.8 * len(arrays)), 3.4), dpi=120, layout="constrained")
    row = figure.subplots(1, len(arrays), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, gate) in zip(row, arrays.items(), strict=True):
        shades = {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0}
        if gate.min() < 0 or gate.max() > 1:
            highest = max(1.0, np.abs(gate).max())
            shades = {"cmap": "RdBu_r", "vmin": -highest, "vmax": highest}
        image = axes.imshow(gate.T, aspect="auto", interpolation="nearest", **shades)
        axes.set(title=name, xlabel="step t")
        count(axes.xaxis, axes.yaxis)
        figure.colorbar(image, ax=axes, location="bottom")
    row[0].set_ylabel("unit")
    return figure


def _draw_apart(axes: Axes, states: np.ndarray, span: int) -> None:
    """Draws the lines above each other, unit 0 on top; a few wide lines may overlap."""
    T, units = states.shape
    distance = 1.3 * np.percentile(np.abs(states).max(axis=0), 75) or 1.0
    starts = np.arange(0, T, span)
    counts = np.diff(starts, append=T)
    steps, marker = starts + (counts - 1) / 2, "." if T <= FEW else None
    for unit in range(units):
        y, shade = unit - states[:, unit] / distance, SHADES[unit % 2]  # y points down
        axes.axhline(unit, color="0.8", linewidth=0.5)
        if span > 1:
            low, high = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
            axes.fill_between(steps, low, high, color=shade, alpha=0.35, linewidth=0)
        mean = np.add.reduceat(y, starts) / counts
        axes.plot(steps, mean, color=shade, lw=0.8, marker=marker, label=str(unit))
    axes.grid(False)
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.set_yticks(range(0, units, -(-units // 16)))
    axes.set_ylabel(f"{axes.get_ylabel()} by unit\n(zero lines {distance:.2g} apart)")
