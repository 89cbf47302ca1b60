"""Plots of gradient experiments, from the arrays that `jlstm.gradients` returns."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jlstm.plots.drawing import BAND, FEW, count, mark_level, panels, styled

FLOOR = 1e-12  # the darkest shade of a heat map, as a fraction of the largest value


def plot_norms(
    norms: Mapping[str, np.ndarray],
    *,
    x: np.ndarray | None = None,
    xlabel: str = "lag (steps)",
    ylabel: str = "gradient norm (loss per unit of the state)",
) -> Figure:
    """Plots norms against lag or time on a logarithmic axis.

    Lines are medians over seeds, bands 10 % to 90 % quantiles. NaN and medians of zero leave gaps.

    Args:
      norms: `[T]`, or `[S, T]` for S seeds, by the name of the line.
      x: `[T]`, the lags or times; None is 0 … T - 1.
      xlabel, ylabel: the labels, with units.

    Raises:
      ValueError: there are no norms, none is above 0, or a shape is not `[T]` or `[S, T]`.

    >>> import jax, jlstm
    >>> study = jlstm.gradients.initialisation_study(jax.random.key(0), (30,), seeds=3)
    >>> names = "forget bias 0", "forget bias 1", "chrono"
    >>> figure = plot_norms(dict(zip(names, study.norm[:, 0])), x=study.lag)
    >>> figure.axes[0].get_xlabel()
    'lag (steps)'
    """
    if not norms:
        raise ValueError("norms: expected one line or more, got none")
    lines = {name: _by_seed(norm) for name, norm in norms.items()}
    x = np.arange(next(iter(lines.values())).shape[-1]) if x is None else np.asarray(x)
    for name, line in lines.items():
        if line.ndim != 2 or line.shape[1:] != x.shape or not line.size:
            got = list(np.shape(norms[name]))
            raise ValueError(f"{name}: expected [T] or [S, T] with T = {len(x)}, got {got}")
    if not any((line > 0).any() for line in lines.values()):
        raise ValueError("norms: expected one above 0, got none")
    figure, (axes,) = panels(8, 4.5)
    axes.set(yscale="log", xlabel=xlabel, ylabel=ylabel)
    _draw_bands(axes, x, lines, above=0)
    return figure


def plot_singular_values(logs: np.ndarray, *, x: np.ndarray | None = None) -> Figure:
    """Plots the logarithms of the singular values of Jacobians over time, one line each.

    Args:
      logs: `[T, N]`, natural logarithms, the largest first; -inf is left out.
      x: `[T]`, the steps t; None is 0 … T - 1.

    Raises:
      ValueError: the shape is not `[T, N]`, or nothing is finite.

    >>> import numpy as np
    >>> plot_singular_values(np.log(np.ones((5, 2)))).axes[0].get_ylabel()
    'ln σ of ∂s_T/∂s_t-1 (nats)'
    """
    logs = np.asarray(logs, np.float64)
    if logs.ndim != 2 or not np.isfinite(logs).any():
        raise ValueError(f"logs: expected finite logarithms [T, N], got shape {list(logs.shape)}")
    T, N = logs.shape
    figure, (axes,) = panels(8, 4.5)
    plain = {"linestyle": "-", "linewidth": 1.2, "marker": "." if T <= FEW else None}
    for line, style in styled({str(k): line for k, line in enumerate(_finite(logs).T, 1)}):
        axes.plot(np.arange(T) if x is None else x, line, **(style | plain))
    ends = {"largest": 0, f"smallest, of {N}": N - 1} if N > 1 else {"σ": 0}
    axes.legend([axes.get_lines()[k] for k in ends.values()], list(ends))
    axes.set(xlabel="step t", ylabel="ln σ of ∂s_T/∂s_t-1 (nats)")
    count(axes.xaxis)
    return figure


def plot_lyapunov(exponents: Mapping[str, np.ndarray] | np.ndarray) -> Figure:
    """Plots Lyapunov spectra in order, the largest exponent first, and a line at zero.

    Args:
      exponents: `[k]`, or `[S, k]` for S seeds, drawn as in `plot_norms`; or several of these by
        name. In nats per step; -inf is left out.

    Raises:
      ValueError: a shape is not `[k]` or `[S, k]`, or nothing is finite.

    >>> import numpy as np
    >>> plot_lyapunov(np.array([-0.1, -0.5, -2.0])).axes[0].get_ylabel()
    'Lyapunov exponent (nats per step)'
    """
    named = exponents if isinstance(exponents, Mapping) else {"": exponents}
    spectra = {name: _finite(_by_seed(spectrum)) for name, spectrum in named.items()}
    for name, spectrum in spectra.items():
        if spectrum.ndim != 2 or np.isnan(spectrum).all():
            got = list(np.shape(named[name]))
            raise ValueError(f"exponents: expected finite ones [k] or [S, k], got shape {got}")
    figure, (axes,) = panels(8, 4.5)
    mark_level(axes, 0, "neither grows nor fades")
    most = max((spectrum.shape[1] for spectrum in spectra.values()), default=0)
    _draw_bands(axes, 1 + np.arange(most), spectra)
    axes.set(xlabel="place k, the largest first", ylabel="Lyapunov exponent (nats per step)")
    return figure


def plot_saliency(saliency: np.ndarray, names: list[str] | None = None) -> Figure:
    """Plots the sensitivity of the last output to each feature of each input, as a heat map.

    Shades are logarithmic, lighter for more. Below 10⁻¹² of the largest value all are darkest.

    Args:
      saliency: `[T, D]`, from `jlstm.gradients.input_sensitivity`.
      names: the names of the D features; None counts them from 0.

    Raises:
      ValueError: the shape is not `[T, D]`, nothing is above 0, or the number of names is not D.

    >>> import numpy as np
    >>> plot_saliency(np.array([[0.1, 0.0], [1.0, 0.5]])).axes[0].get_ylabel()
    'feature d'
    """
    saliency = np.asarray(saliency, np.float64)
    shape, positive = list(saliency.shape), saliency[saliency > 0]
    if len(shape) != 2 or not positive.size or not np.isfinite(saliency).all():
        raise ValueError(f"saliency: expected [T, D] with a number above 0, got shape {shape}")
    D = shape[1]
    names = list(map(str, range(D))) if names is None else names
    if len(names) != D:
        raise ValueError(f"names: expected {D}, got {len(names)}")
    figure, (axes,) = panels(8, min(2.2 + 0.35 * D, 10))
    top = saliency.max()
    least = max(positive.min(), FLOOR * top)
    norm = colors.LogNorm(least if least < top else top / 10, top, clip=True)
    options = {"cmap": "magma", "aspect": "auto", "interpolation": "nearest", "norm": norm}
    image = axes.imshow(np.maximum(saliency.T, least), **options)
    axes.grid(False)
    axes.set(xlabel="step t", ylabel="feature d")
    count(axes.xaxis)
    axes.set_yticks(range(0, D, -(-D // 16)), names[:: -(-D // 16)])
    figure.colorbar(image, label="‖∂h_T/∂x_t,d‖\n(output per unit of input)")
    return figure


def plot_truncation(steps: np.ndarray, bias: np.ndarray, cosine: np.ndarray) -> Figure:
    """Plots the bias and the angle of gradients truncated after K steps.

    Args:
      steps: `[K]`, from `jlstm.gradients.truncation_study`.
      bias, cosine: `[K]`, or `[S, K]` for S seeds, drawn as in `plot_norms`.

    Raises:
      ValueError: the shapes do not fit each other.

    >>> import numpy as np
    >>> figure = plot_truncation(np.arange(1, 4), np.array([0.5, 0.1, 0.0]), np.ones(3))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['relative bias\\n‖g_K - g‖ / ‖g‖', 'angle between\\ng_K and g (degrees)']
    """
    steps, biases, cosines = np.asarray(steps), _by_seed(bias), _by_seed(cosine)
    if any(curve.ndim != 2 or curve.shape[1:] != steps.shape for curve in (biases, cosines)):
        got = ", ".join(str(list(np.shape(a))) for a in (steps, bias, cosine))
        raise ValueError(f"steps, bias, cosine: expected [K], [S, K] and [S, K], got {got}")
    figure, (upper, lower) = panels(8, 5.5, rows=2)
    upper.set(yscale="log", ylabel="relative bias\n‖g_K - g‖ / ‖g‖")
    _draw_bands(upper, steps, {"": biases}, above=0)
    _draw_bands(lower, steps, {"": np.degrees(np.arccos(np.clip(cosines, -1, 1)))})
    lower.set(xlabel="truncation K (steps)", ylabel="angle between\ng_K and g (degrees)")
    lower.set_ylim(bottom=0)
    return figure


def _by_seed(values: Any) -> np.ndarray:
    return np.atleast_2d(np.asarray(values, np.float64))


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _draw_bands(axes: Axes, x, lines: Mapping[str, np.ndarray], above: float = -np.inf) -> None:
    """Draws medians and bands; NaN and medians that are not `above` a level leave gaps."""
    for seeds, style in styled(lines):
        there = np.flatnonzero(~np.isnan(seeds).all(axis=0))
        low, median, high = np.nanquantile(seeds[:, there], (0.1, 0.5, 0.9), axis=0)
        shown = median > above
        if len(seeds) > 1:
            least = median[shown & (low <= above)].min(initial=np.inf)
            bottom = np.where(low > above, low, low[low > above].min(initial=least))
            axes.fill_between(x[there], bottom, high, shown, color=style["color"], **BAND)
        style |= {"marker": "o" if len(there) <= FEW else None, "markersize": 3.5}
        axes.plot(x[there], np.where(shown, median, np.nan), **style)
    if len(lines) > 1:
        axes.legend()
    count(axes.xaxis)
