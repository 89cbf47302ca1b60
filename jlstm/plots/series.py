"""Pictures of forecasts."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from jlstm.plots.drawing import BAND, count, panels, styled


def plot_forecast(
    series: np.ndarray,
    forecasts: np.ndarray,
    *,
    names: Sequence[str] | None = None,
    others: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Plots the end of a series, and the median and the middle four fifths of its forecasts.

    Args:
      series: `[T, D]`; a panel a column.
      forecasts: `[S, K, D]` by S seeds, of the K steps after the series.
      names: the names of the columns.
      others: forecasts `[K, D]` of other methods, by name.

    Raises:
      ValueError: the shapes do not fit.

    >>> import numpy as np
    >>> figure = plot_forecast(np.zeros((50, 1)), np.ones((3, 10, 1)), names=["wind"])
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['wind']
    """
    series, forecasts = np.asarray(series, np.float64), np.asarray(forecasts, np.float64)
    fits = series.ndim == 2 and forecasts.ndim == 3 and forecasts.size and series.size
    if not fits or forecasts.shape[2] != series.shape[1]:
        got = f"{list(series.shape)} and {list(forecasts.shape)}"
        raise ValueError(f"series, forecasts: expected shapes [T, D] and [S, K, D], got {got}")
    (T, D), K = series.shape, forecasts.shape[1]
    names, others = names or [f"x{d}" for d in range(D)], others or {}
    figure, rows = panels(8, 1.2 + 2.4 * D, rows=D)
    past = np.arange(max(T - max(4 * K, 50), 0), T)
    steps = T - 1 + np.arange(K + 1)  # from the last value on
    low, median, high = np.quantile(forecasts, [0.1, 0.5, 0.9], axis=0)
    for d, axes in enumerate(rows):
        axes.plot(past, series[past, d], color="0.3", linewidth=1.2, label="series")
        for line, style in styled({"median of seeds": median, **others}):
            if line is median:
                bottom, top = (np.append(series[-1, d], edge[:, d]) for edge in (low, high))
                axes.fill_between(steps, bottom, top, color=style["color"], **BAND)
            axes.plot(steps, np.append(series[-1, d], np.asarray(line)[:, d]), **style)
        axes.set_ylabel(names[d])
    figure.legend(handles=rows[0].get_lines(), loc="outside upper center", ncols=3)
    rows[-1].set_xlabel("step t")
    count(rows[-1].xaxis)
    return figure
