"""Pictures of gradient experiments: the lines carry the numbers, and the axes say what they are."""

import io

import numpy as np
import pytest

from jlstm import plots

T, SEEDS = 40, 9
RANDOM = np.random.default_rng(0)


def render(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def falling(rate):
    return np.exp(-rate * np.arange(T) + RANDOM.normal(size=(SEEDS, T)))


def ydata(line):
    return np.asarray(line.get_ydata())


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def lightness(colour):
    return np.asarray(colour)[:3] @ [0.2126, 0.7152, 0.0722]


def test_norms_are_medians_with_bands_on_a_logarithmic_axis():
    norms = {"forget bias 1": falling(0.5), "chrono": falling(0.1)}
    figure = plots.plot_norms(norms, x=np.arange(T) + 1)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "lag (steps)"
    assert axes.get_ylabel() == "gradient norm (loss per unit of the state)"
    assert legend(axes) == list(norms)
    for line, band, norm in zip(axes.get_lines(), axes.collections, norms.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(T) + 1)
        np.testing.assert_allclose(ydata(line), np.median(norm, axis=0))
        corners = np.asarray(band.get_paths()[0].vertices)
        low, high = np.quantile(norm, (0.1, 0.9), axis=0)
        np.testing.assert_allclose(
            [corners[:, 1].min(), corners[:, 1].max()], [low.min(), high.max()]
        )
    assert render(figure).startswith(b"\x89PNG")


def test_lines_differ_without_colour():
    norms = {str(k): falling(0.1) for k in range(6)}
    lines = plots.plot_norms(norms).axes[0].get_lines()
    assert (np.diff([lightness(line.get_color()) for line in lines]) > 0.02).all()
    assert [line.is_dashed() for line in lines[:4]] == [False, True, True, True]


def test_zeros_and_lags_that_are_not_there_leave_gaps():
    norm = falling(0.1)
    norm[:, 30:] = np.nan
    norm[:6, 10] = 0  # most of the seeds: the median is zero
    norm[:3, 20] = 0  # a third of them: it is that of all the same
    line = plots.plot_norms({"a": norm}).axes[0].get_lines()[0]
    shown = ydata(line)
    assert len(shown) == 30 and np.flatnonzero(np.isnan(shown)).tolist() == [10]
    np.testing.assert_allclose(shown[20], np.median(norm[:, 20]))
    assert render(plots.plot_norms({"a": norm}))


def test_singular_values_are_lines_from_dark_to_light():
    logs = -np.sort(RANDOM.exponential(size=(T, 4)), axis=1) * np.arange(T)[::-1, None]
    logs[3, 3] = -np.inf
    figure = plots.plot_singular_values(logs)
    (axes,) = figure.axes
    for k, line in enumerate(axes.get_lines()):
        there = np.isfinite(logs[:, k])
        np.testing.assert_array_equal(ydata(line)[there], logs[there, k])
    assert (np.diff([lightness(line.get_color()) for line in axes.get_lines()]) > 0.05).all()
    assert legend(axes) == ["largest", "smallest, of 4"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step t", "ln σ of ∂s_T/∂s_t-1 (nats)")
    assert render(figure) and render(plots.plot_singular_values(logs[:1, :1]))


def test_a_lyapunov_spectrum_stands_beside_zero():
    exponents = -np.sort(RANDOM.exponential(size=(SEEDS, 6)), axis=1)
    figure = plots.plot_lyapunov({"LSTM": exponents, "one": exponents[0]})
    (axes,) = figure.axes
    zero, lstm, one = axes.get_lines()
    np.testing.assert_array_equal(ydata(zero), [0, 0])
    np.testing.assert_allclose(ydata(lstm), np.median(exponents, axis=0))
    np.testing.assert_array_equal(ydata(one), exponents[0])
    np.testing.assert_array_equal(one.get_xdata(), np.arange(1, 7))
    assert axes.get_ylabel() == "Lyapunov exponent (nats per step)"
    assert axes.get_xlabel() == "place k, the largest first"
    assert render(figure) and render(plots.plot_lyapunov(exponents[0, :1]))


def test_saliency_is_a_map_of_all_inputs():
    saliency = np.exp(RANDOM.normal(size=(T, 3)) * 3)
    saliency[5, 1] = 0
    figure = plots.plot_saliency(saliency, ["wind", "gusts", "rain"])
    axes, bar = figure.axes
    shown = np.asarray(axes.get_images()[0].get_array())
    assert shown.shape == (3, T)
    np.testing.assert_allclose(shown, np.maximum(saliency.T, saliency[saliency > 0].min()))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["wind", "gusts", "rain"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step t", "feature d")
    assert bar.get_ylabel() == "‖∂h_T/∂x_t,d‖\n(output per unit of input)"
    assert render(figure)
    assert render(plots.plot_saliency(np.ones((1, 1)))) and render(
        plots.plot_saliency(np.ones((900, 70)))
    )


def test_truncation_shows_bias_and_angle():
    steps, cosine = np.arange(1, 11), np.cos(np.radians(np.linspace(40, 0, 10)))
    bias = np.exp(-steps - RANDOM.random((SEEDS, 10)))
    figure = plots.plot_truncation(steps, bias, np.tile(cosine, (SEEDS, 1)))
    upper, lower = figure.axes
    assert upper.get_yscale() == "log"
    np.testing.assert_allclose(ydata(upper.get_lines()[0]), np.median(bias, axis=0))
    np.testing.assert_allclose(ydata(lower.get_lines()[0]), np.linspace(40, 0, 10), atol=1e-5)
    assert upper.get_ylabel() == "relative bias\n‖g_K - g‖ / ‖g‖"
    assert lower.get_ylabel() == "angle between\ng_K and g (degrees)"
    assert lower.get_xlabel() == "truncation K (steps)"
    assert render(figure) and render(plots.plot_truncation(steps[:1], bias[0, :1], cosine[:1]))


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda: plots.plot_norms({}), "norms: expected one line or more, got none"),
        (lambda: plots.plot_norms({"a": np.zeros(4)}), "norms: expected one above 0, got none"),
        (lambda: plots.plot_norms({"a": np.ones(4), "b": np.ones(5)}), "b: expected"),
        (lambda: plots.plot_singular_values(np.ones(4)), "logs: expected finite"),
        (lambda: plots.plot_singular_values(np.full((4, 2), -np.inf)), "logs: expected finite"),
        (lambda: plots.plot_lyapunov(np.ones((2, 2, 2))), "exponents: expected finite"),
        (lambda: plots.plot_saliency(np.zeros((4, 2))), "saliency: expected"),
        (lambda: plots.plot_saliency(np.ones((4, 2)), ["a"]), "names: expected 2, got 1"),
        (lambda: plots.plot_truncation(np.ones(3), np.ones(3), np.ones(2)), "steps, bias, cosine"),
    ],
)
def test_malformed_numbers_are_refused(draw, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        draw()
