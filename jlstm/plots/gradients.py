"""Pictures of gradient experiments: what `jlstm.gradients` returns, as arrays."""

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jlstm.plots.states import STYLES

QUANTILES = 0.1, 0.9  # of the seeds, between which the bands lie
FLOOR = 1e-12  # of the largest value: below it a heat map tells no shades apart


def plot_norms(
    norms: Mapping[str, np.ndarray],
    *,
    x: np.ndarray | None = None,
    xlabel: str = "lag (steps)",
    ylabel: str = "gradient norm (loss per unit of the state)",
) -> Figure:
    """Norms against lag or time on a logarithmic axis: the median of seeds and a band around it.

    The band holds the seeds from the 10 % to the 90 % quantile. NaN is left out, and so is a
    median of zero. Lines differ in lightness and in style, so that greyscale printing keeps them
    apart.

    Args:
      norms: by the name of a line, `[T]`, or `[S, T]` for S seeds.
      x: `[T]`, the lags or times; None is 0 … T - 1.
      xlabel: what x is, with its unit.
      ylabel: what the norms are, with their unit.

    Raises:
      ValueError: there are no norms, their shapes differ from `[T]` or `[S, T]`, or none is
        above 0.

    >>> import jax, jlstm
    >>> study = jlstm.gradients.initialisation_study(jax.random.key(0), (30,), seeds=3)
    >>> names = "forget bias 0", "forget bias 1", "chrono"
    >>> figure = plot_norms(dict(zip(names, study.norm[:, 0])), x=study.lag)
    >>> figure.axes[0].get_xlabel()
    'lag (steps)'
    """
    if not norms:
        raise ValueError("norms: expected one line or more, got none")
    lines = {name: np.atleast_2d(np.asarray(n, np.float64)) for name, n in norms.items()}
    first = next(iter(lines.values()))
    x = np.arange(first.shape[-1]) if x is None else np.asarray(x)
    for name, line in lines.items():
        if line.ndim != 2 or line.shape[1:] != x.shape or not line.size:
            got = list(np.shape(norms[name]))
            raise ValueError(f"{name}: expected [T] or [S, T] with T = {len(x)}, got {got}")
    if not any((line > 0).any() for line in lines.values()):
        raise ValueError("norms: expected one above 0, got none")
    figure, axes = _figure(8, 4.5)
    axes.set_yscale("log")
    for k, (name, line) in enumerate(lines.items()):
        _draw_band(axes, x, line, k, len(lines), name, above=0)
    if len(lines) > 1:
        axes.legend()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def plot_singular_values(logs: np.ndarray, *, x: np.ndarray | None = None) -> Figure:
    """The singular values of Jacobians over time, their logarithms, one line each.

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
    x = np.arange(T) if x is None else np.asarray(x)
    figure, axes = _figure(8, 4.5)
    colours = _colours(N)
    logs = np.where(np.isfinite(logs), logs, np.nan)
    for k in range(N):
        marker = "." if T <= 50 else None
        axes.plot(x, logs[:, k], color=colours[k], linewidth=1.2, marker=marker, label=str(k + 1))
    ends = sorted({0, N - 1})
    handles = [axes.get_lines()[k] for k in ends]
    names = [{0: "largest", N - 1: f"smallest, of {N}"}[k] if N > 1 else "σ" for k in ends]
    axes.legend(handles, names)
    axes.set_xlabel("step t")
    axes.set_ylabel("ln σ of ∂s_T/∂s_t-1 (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def plot_lyapunov(exponents: Mapping[str, np.ndarray] | np.ndarray) -> Figure:
    """Lyapunov spectra: the exponents against their place, largest first, beside zero.

    Args:
      exponents: `[k]`, or `[S, k]` for S seeds, whose median and 10 % to 90 % band are drawn; or
        several of these by name. In nats per step; -inf is left out.

    Raises:
      ValueError: a shape is other, or nothing is finite.

    >>> import numpy as np

    >>> plot_lyapunov(np.array([-0.1, -0.5, -2.0])).axes[0].get_ylabel()
    'Lyapunov exponent (nats per step)'
    """
    named = exponents if isinstance(exponents, Mapping) else {"": exponents}
    spectra = {name: np.atleast_2d(np.asarray(e, np.float64)) for name, e in named.items()}
    for name, spectrum in spectra.items():
        if spectrum.ndim != 2 or not np.isfinite(spectrum).any():
            got = list(np.shape(named[name]))
            raise ValueError(f"exponents: expected finite ones [k] or [S, k], got shape {got}")
    figure, axes = _figure(8, 4.5)
    axes.axhline(0, color="0.4", linewidth=1)
    axes.annotate(
        "neither grows nor fades", (1, 0), (-4, 3), ("axes fraction", "data"), "offset points",
        ha="right", color="0.3",
    )  # fmt: skip
    for j, (name, spectrum) in enumerate(spectra.items()):
        spectrum = np.where(np.isfinite(spectrum), spectrum, np.nan)
        _draw_band(axes, 1 + np.arange(spectrum.shape[1]), spectrum, j, len(spectra), name)
    if len(spectra) > 1:
        axes.legend()
    axes.set_xlabel("place k, the largest first")
    axes.set_ylabel("Lyapunov exponent (nats per step)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def plot_saliency(saliency: np.ndarray, names: list[str] | None = None) -> Figure:
    """How the last output answers to each feature of each input, as a heat map.

    The shades are logarithmic and get lighter with the sensitivity; what is zero, or below 10⁻¹²
    of the largest, has the darkest.

    Args:
      saliency: `[T, D]`, of `jlstm.gradients.input_sensitivity`.
      names: of the D features; None counts them from 0.

    Raises:
      ValueError: the shape is not `[T, D]`, nothing is above 0, or the names are not D.

    >>> import numpy as np

    >>> plot_saliency(np.array([[0.1, 0.0], [1.0, 0.5]])).axes[0].get_ylabel()
    'feature d'
    """
    saliency = np.asarray(saliency, np.float64)
    if saliency.ndim != 2 or not (saliency > 0).any() or not np.isfinite(saliency).all():
        got = list(saliency.shape)
        raise ValueError(f"saliency: expected [T, D] with a number above 0, got shape {got}")
    T, D = saliency.shape
    if names is not None and len(names) != D:
        raise ValueError(f"names: expected {D}, got {len(names)}")
    figure, axes = _figure(8, min(2.2 + 0.35 * D, 10))
    top = saliency.max()
    least = max(saliency[saliency > 0].min(), FLOOR * top)
    shades = LogNorm(least if least < top else top / 10, top, clip=True)
    image = axes.imshow(
        np.maximum(saliency.T, least), norm=shades, cmap="magma", aspect="auto",
        interpolation="nearest", extent=(-0.5, T - 0.5, D - 0.5, -0.5),
    )  # fmt: skip
    axes.grid(False)
    axes.set_xlabel("step t")
    axes.set_ylabel("feature d")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    places = range(0, D, -(-D // 16))
    axes.set_yticks(places, [names[d] if names else str(d) for d in places])
    figure.colorbar(image, label="‖∂h_T/∂x_t,d‖\n(output per unit of input)")
    return figure


def plot_truncation(steps: np.ndarray, bias: np.ndarray, cosine: np.ndarray) -> Figure:
    """What truncating the gradient after K steps costs: its bias, and the angle it is off by.

    Args:
      steps: `[K]`, of `jlstm.gradients.truncation_study`.
      bias: `[K]`, or `[S, K]` for S seeds, whose median and 10 % to 90 % band are drawn.
      cosine: as `bias`.

    Raises:
      ValueError: the shapes do not fit each other.

    >>> import numpy as np

    >>> figure = plot_truncation(np.arange(1, 4), np.array([0.5, 0.1, 0.0]), np.ones(3))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['relative bias\\n‖g_K - g‖ / ‖g‖', 'angle between\\ng_K and g (degrees)']
    """
    steps = np.asarray(steps)
    curves = [np.atleast_2d(np.asarray(a, np.float64)) for a in (bias, cosine)]
    if any(curve.ndim != 2 or curve.shape[1:] != steps.shape for curve in curves):
        got = ", ".join(str(list(np.shape(a))) for a in (steps, bias, cosine))
        raise ValueError(f"steps, bias, cosine: expected [K], [S, K] and [S, K], got {got}")
    angle = np.degrees(np.arccos(np.clip(curves[1], -1, 1)))
    figure = Figure(figsize=(8, 5.5), dpi=120, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    upper.set_yscale("log")
    _draw_band(upper, steps, curves[0], 0, 1, "", above=0)
    _draw_band(lower, steps, angle, 0, 1, "")
    upper.set_ylabel("relative bias\n‖g_K - g‖ / ‖g‖")
    lower.set_ylabel("angle between\ng_K and g (degrees)")
    lower.set_xlabel("truncation K (steps)")
    lower.set_ylim(bottom=0)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in (upper, lower):
        axes.grid(color="0.9")
        axes.margins(x=0.02)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.grid(color="0.9")
    axes.margins(x=0.02)
    return figure, axes


def _colours(count: int) -> np.ndarray:
    """From dark to light, so that neighbours differ in greyscale too."""
    return colormaps["viridis"](np.linspace(0, 0.85, count))


def _draw_band(axes: Axes, x, lines, k: int, of: int, label: str, above: float = -np.inf) -> None:
    """The median of `lines` `[S, T]` and the band between their quantiles; NaN leaves gaps.

    So does a median that is not `above` this: zeros count, but have no place on a logarithmic axis.
    """
    there = ~np.isnan(lines).all(axis=0)
    x, lines = x[there], lines[:, there]
    colour, style = _colours(of)[k], STYLES[k % len(STYLES)]
    low, median, high = np.nanquantile(lines, (QUANTILES[0], 0.5, QUANTILES[1]), axis=0)
    shown = median > above
    if len(lines) > 1:
        least = median[shown & (low <= above)].min(initial=np.inf)
        bottom = np.where(low > above, low, np.minimum(least, low[low > above].min(initial=least)))
        axes.fill_between(x, bottom, high, where=shown, color=colour, alpha=0.2, linewidth=0)
    marker = "o" if len(x) <= 50 else None
    axes.plot(
        x, np.where(shown, median, np.nan), color=colour, linestyle=style, linewidth=1.6,
        marker=marker, markersize=3.5, label=label,
    )  # fmt: skip
