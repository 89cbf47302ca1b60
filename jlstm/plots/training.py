"""Plots of training: the learning curves of many runs, and the share of runs that succeed."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from jlstm.plots.drawing import BAND, mark_level, panels, styled

Arrays = Mapping[str, np.ndarray]
POINTS = 100  # of a learning curve


def plot_training(losses: Arrays, solved_at: Arrays, *, baseline: float | None = None) -> Figure:
    """Plots learning curves of many seeds: the loss, and the share of seeds solved by each step.

    The upper panel has the median of each setting's seeds and a band with their middle four fifths.
    Each point is the mean over a span of steps.

    Args:
      losses: `[S, steps]` for S seeds, by the name of the setting; steps of NaN are left out.
      solved_at: `[S]` by the same names, the step at which each seed was solved, -1 for never.
      baseline: the loss of a trivial answer, drawn as a line.

    Raises:
      ValueError: the names differ, or the shapes are not `[S, steps]` and `[S]`.

    >>> import numpy as np
    >>> losses = {"1": 1 / np.arange(1.0, 301) * np.ones((10, 1))}
    >>> figure = plot_training(losses, {"1": np.arange(10) * 30})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'seeds solved']
    """
    if set(losses) != set(solved_at) or not losses:
        got = f"{', '.join(losses)} and {', '.join(solved_at)}"
        raise ValueError(f"losses, solved_at: expected the same names, got {got}")
    for name, curves in losses.items():
        if np.ndim(curves) != 2 or np.shape(solved_at[name]) != np.shape(curves)[:1]:
            got = f"{np.shape(curves)} and {np.shape(solved_at[name])}"
            raise ValueError(f"{name}: expected shapes [S, steps] and [S], got {got}")
    figure, (upper, lower) = panels(8, 6, rows=2, height_ratios=(2, 1))
    steps = max(np.shape(curves)[1] for curves in losses.values())
    _draw_losses(figure, upper, losses, baseline)
    for ends, style in styled({name: np.sort(np.asarray(solved_at[name])) for name in losses}):
        solved = ends[ends >= 0]
        shares = np.arange(len(solved) + 1) / len(ends)
        x = np.concatenate([[0], solved, [steps]])
        lower.step(x, np.append(shares, shares[-1]), where="post", **style)
    upper.set_ylabel("loss")
    lower.set(ylabel="seeds solved", ylim=(-0.05, 1.05), xlabel=_step_label(steps))
    lower.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def plot_panels(losses: Mapping[str, Arrays], *, baseline: float | None = None) -> Figure:
    """Plots learning curves as in `plot_training`, in panels with common axes, for example by cell.

    Args:
      losses: `[S, steps]` by the name of the setting, by panel; all panels have the same settings.
      baseline: the loss of a trivial answer, drawn as a line.

    Raises:
      ValueError: `losses` is empty, the settings differ, or a shape is not `[S, steps]`.

    >>> import numpy as np
    >>> curves = {"chrono": 1 / np.arange(1.0, 301) * np.ones((10, 1))}
    >>> figure = plot_panels({"lstm": curves, "gru": curves})
    >>> [axes.get_title() for axes in figure.axes]
    ['lstm', 'gru']
    """
    settings = list(next(iter(losses.values()), ()))
    if not settings or any(list(panel) != settings for panel in losses.values()):
        got = "; ".join(f"{name}: {', '.join(panel)}" for name, panel in losses.items())
        raise ValueError(f"losses: expected the same settings in each panel, got {got or 'none'}")
    shapes = {np.shape(curves) for panel in losses.values() for curves in panel.values()}
    if bad := [list(shape) for shape in shapes if len(shape) != 2]:
        raise ValueError(f"losses: expected shapes [S, steps], got {bad[0]}")
    columns = int(np.ceil(np.sqrt(len(losses))))
    rows = -(-len(losses) // columns)
    figure, grid = panels(1 + 2.6 * columns, 1.2 + 1.9 * rows, rows, columns, dpi=100, sharey=True)
    for axes, (title, panel) in zip(grid, losses.items(), strict=False):
        _draw_losses(figure, axes, panel, baseline)
        axes.set_title(title, fontsize="medium")
    for axes in grid[len(losses) :]:
        figure.delaxes(axes)
    figure.supxlabel(_step_label(max(shape[1] for shape in shapes)), fontsize="medium")
    figure.supylabel("loss", fontsize="medium")
    return figure


def plot_success(
    rates: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, seeds: int | None = None
) -> Figure:
    """Plots a grid of success rates as a heat map, with the rate in each cell.

    Args:
      rates: `[R, C]`, from 0 to 1.
      rows, columns: the names of the R and C settings.
      seeds: the number of runs behind each rate, for the title.

    Raises:
      ValueError: the names do not fit the shape.

    >>> import numpy as np
    >>> figure = plot_success(np.array([[0.1, 1.0]]), ["H = 32"], ["b_f = 1", "chrono"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['10%', '100%']
    """
    rates = np.asarray(rates, np.float64)
    if rates.shape != (len(rows), len(columns)) or not rates.size:
        got = f"{list(rates.shape)} with {len(rows)} and {len(columns)}"
        raise ValueError(f"rates: expected a name a row and a column, got {got}")
    height = 1.4 + 0.45 * len(rows)
    width = 2.0 + 0.1 * (max(map(len, rows)) + max(9, *map(len, columns)) * len(columns))
    figure = Figure(figsize=(max(width, 5.0), height), dpi=120, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(rates, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for (row, column), rate in np.ndenumerate(rates):
        colour = "white" if rate < 0.6 else "black"
        axes.text(column, row, f"{rate:.0%}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    title = "solved" if seeds is None else f"solved, of {seeds} seeds"
    figure.colorbar(image, label=title, format=PercentFormatter(1))
    return figure


def _step_label(steps: int) -> str:
    span = -(-steps // POINTS)
    return "step" if span == 1 else f"step (losses are means of {span})"


def _draw_losses(figure: Figure, axes: Axes, losses, baseline: float | None) -> None:
    for curves, style in styled(losses):
        curves = np.asarray(curves, np.float64)
        curves = curves[:, ~np.isnan(curves).all(axis=0)]
        steps = curves.shape[1]
        starts = np.arange(0, steps, -(-steps // POINTS))
        counts = np.diff(starts, append=steps)
        curves = np.where(np.isfinite(curves), curves, np.inf)  # a diverged run counts as the worst
        means = np.add.reduceat(curves, starts, axis=1) / counts
        x = starts + (counts + 1) / 2  # the first step is step 1
        ranks = np.rint(np.array([0.1, 0.5, 0.9]) * (len(means) - 1)).astype(int)
        low, median, high = np.sort(means, axis=0)[ranks]
        axes.fill_between(x, low, high, color=style["color"], **BAND)
        axes.plot(x, median, **style)
    if len(losses) > 1 and not figure.legends:
        figure.legend(handles=axes.get_lines(), loc="outside upper center", ncols=2)
    if baseline is not None:
        mark_level(axes, baseline, "baseline")
    axes.set_yscale("log")
