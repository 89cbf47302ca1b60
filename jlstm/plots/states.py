"""Pictures of what a network did: its states over time."""

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

LEGEND = 10  # units that a legend can tell apart
CROWD = 2000  # points that lines drawn over each other can have and still be followed
BINS = 500  # points of a line that a picture is wide enough for
STYLES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))
SHADES = ("#14284f", "#c2703d")  # neighbours differ, in greyscale too


def plot_states(H: np.ndarray, C: np.ndarray) -> Figure:
    """The histories of the hidden and the cell state over time, one line a unit.

    A few short lines share one axis; they differ in lightness and in style, so that the picture
    survives greyscale printing. Many lines, or long ones, stand above each other instead, each
    on a zero line of its own that is labelled with its unit. Of a series with more than 1,000
    steps each line is the mean over short spans of time, within the range of the values there; the
    labels of the axes say how long the spans are, and how far apart two zero lines.

    Args:
      H: `[T, H]`, hidden states.
      C: `[T, H]`, cell states.

    Raises:
      ValueError: the shapes are not `[T, H]`, not the same, or without a step or a unit.

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
    figure = Figure(figsize=(8, height), dpi=120, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    for axes, states, label in ((upper, H, "hidden state h"), (lower, C, "cell state c")):
        axes.set_ylabel(label)
        axes.margins(x=0.01)
        (_draw_together if together else _draw_apart)(axes, states)
    if together:
        figure.legend(handles=upper.get_lines(), title="unit", loc="outside right upper")
    span = _span(T)
    lower.set_xlabel("step t" if span == 1 else f"step t (mean and range of every {span} steps)")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def plot_gates(gates: Mapping[str, np.ndarray]) -> Figure:
    """The gates over time, or whatever a cell has of each unit: a heat map each, a unit a row.

    Shades go from dark at 0 to light at 1. What has negative values, as the candidate g and the
    states have, or values above 1 goes from blue to red instead, white at 0.

    Args:
      gates: `[T, H]` by name, after the activations: σ(i), σ(f), tanh(g), σ(o).

    Raises:
      ValueError: there are none, or the shapes are not `[T, H]`, not the same, or without a step
        or a unit.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> xs = jax.random.normal(jax.random.key(1), (10, 2))
    >>> _, states = jlstm.unroll(params, xs, return_states=True)
    >>> h_tm1 = jax.numpy.concatenate([jax.numpy.zeros((1, 3)), states.h[:-1]])
    >>> z = jlstm.cells.preactivation(params, xs, h_tm1)      # of all steps at once
    >>> i, f, g, o = jax.numpy.split(z, 4, axis=-1)
    >>> figure = plot_gates({"input gate i": jax.nn.sigmoid(i), "candidate g": jax.numpy.tanh(g)})
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['input gate i', 'candidate g']
    """
    arrays = {name: np.asarray(gate, np.float64) for name, gate in gates.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or any(len(shape) != 2 or 0 in shape for shape in shapes):
        got = ", ".join(str(list(array.shape)) for array in arrays.values()) or "none"
        raise ValueError(f"gates: expected arrays [T, H] of one shape, got {got}")
    figure = Figure(figsize=(max(3.0, 1.8 * len(arrays)), 3.4), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(arrays), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, gate) in zip(panels, arrays.items(), strict=True):
        lowest, highest = 0.0, 1.0
        if gate.min() < 0 or gate.max() > 1:
            highest = max(1.0, np.abs(gate).max())
            lowest = -highest
        image = axes.imshow(
            gate.T, cmap="viridis" if lowest == 0 else "RdBu_r", vmin=lowest, vmax=highest,
            aspect="auto", interpolation="nearest",
        )  # fmt: skip
        axes.set_title(name)
        axes.set_xlabel("step t")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        figure.colorbar(image, ax=axes, location="bottom")
    panels[0].set_ylabel("unit")
    return figure


def _draw_together(axes: Axes, states: np.ndarray) -> None:
    """The lines over each other, for a legend to tell apart."""
    T, units = states.shape
    colours = colormaps["viridis"](np.linspace(0, 0.85, units))  # from dark to light
    axes.grid(color="0.9")
    for unit in range(units):
        axes.plot(
            states[:, unit],
            color=colours[unit],
            linestyle=STYLES[unit % len(STYLES)],
            linewidth=1.6,
            marker="o" if T <= 50 else None,
            markersize=3.5,
            label=str(unit),
        )


def _draw_apart(axes: Axes, states: np.ndarray) -> None:
    """The lines above each other, unit 0 on top; the distance suits most units, not the widest."""
    T, units = states.shape
    distance = 1.3 * np.percentile(np.abs(states).max(axis=0), 75) or 1.0
    starts = np.arange(0, T, _span(T))
    counts = np.diff(starts, append=T)
    steps = starts + (counts - 1) / 2
    for unit in range(units):
        y = unit - states[:, unit] / distance  # the axis is inverted below
        axes.axhline(unit, color="0.8", linewidth=0.5)
        if _span(T) > 1:
            low, high = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
            axes.fill_between(steps, low, high, color=SHADES[unit % 2], alpha=0.35, linewidth=0)
        mean = np.add.reduceat(y, starts) / counts
        marker = "." if T <= 50 else None
        axes.plot(steps, mean, color=SHADES[unit % 2], lw=0.8, marker=marker, label=str(unit))
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.set_yticks(range(0, units, -(-units // 16)))
    axes.set_ylabel(f"{axes.get_ylabel()} by unit\n(zero lines {distance:.2g} apart)")


def _span(T: int) -> int:
    """How many steps one point of a line stands for."""
    return -(-T // BINS) if T > 2 * BINS else 1
