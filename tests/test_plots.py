"""Pictures: the lines carry the numbers, and a picture of anything can be drawn quickly."""

import io
import time

import matplotlib as mpl
import numpy as np
import pytest

from jlstm import plots, reference


def histories(T, H):
    return np.random.RandomState(0).randn(2, T, H)


def render(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def test_a_line_a_unit_with_the_values_of_the_histories():
    H, C = reference.run(*reference.draw())
    figure = plots.plot_states(H, C)
    for axes, states in zip(figure.axes, (H, C), strict=True):
        lines = axes.get_lines()
        assert len(lines) == 3
        for unit, line in enumerate(lines):
            np.testing.assert_array_equal(line.get_ydata(), states[:, unit])
            np.testing.assert_array_equal(line.get_xdata(), np.arange(10))


def test_axes_and_units_are_labelled():
    figure = plots.plot_states(*histories(20, 3))
    upper, lower = figure.axes
    assert upper.get_ylabel() == "hidden state h"
    assert lower.get_ylabel() == "cell state c"
    assert lower.get_xlabel() == "step t"
    assert upper.get_shared_x_axes().joined(upper, lower)
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "unit"
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1", "2"]


def test_units_differ_without_colour():
    lines = plots.plot_states(*histories(20, 10)).axes[0].get_lines()
    rgb = np.array([line.get_color() for line in lines])[:, :3]
    lightness = rgb @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0.02).all()
    styles = [plots.STYLES[unit % 4] for unit in range(10)]
    assert len(set(plots.STYLES)) == 4
    assert [line.is_dashed() for line in lines] == [style != "-" for style in styles]


def test_many_units_stand_above_each_other():
    H, C = histories(300, 32)
    figure = plots.plot_states(H, C)
    assert not figure.legends
    axes = figure.axes[0]
    lines = [line for line in axes.get_lines() if str(line.get_label()).isdecimal()]
    assert [line.get_label() for line in lines] == [str(unit) for unit in range(32)]
    distance = 1.3 * np.percentile(np.abs(H).max(axis=0), 75)
    np.testing.assert_allclose(np.asarray(lines[5].get_ydata()), 5 - H[:, 5] / distance)
    assert axes.yaxis_inverted()  # so that up is positive
    assert axes.get_ylabel() == f"hidden state h by unit\n(zero lines {distance:.2g} apart)"


def test_a_long_series_is_summarised_and_drawn_quickly():
    H, C = histories(100_003, 8)
    begin = time.perf_counter()
    figure = plots.plot_states(H, C)
    picture = render(figure)
    assert time.perf_counter() - begin < 10
    assert len(picture) < 500_000
    assert figure.axes[1].get_xlabel() == "step t (mean and range of every 201 steps)"
    line = next(line for line in figure.axes[0].get_lines() if line.get_label() == "0")
    distance = 1.3 * np.percentile(np.abs(H).max(axis=0), 75)
    ydata = np.asarray(line.get_ydata())
    assert len(ydata) == 498
    np.testing.assert_allclose(ydata[0], -H[:201, 0].mean() / distance, atol=1e-12)
    np.testing.assert_allclose(ydata[-1], -H[497 * 201 :, 0].mean() / distance, atol=1e-12)
    assert len(figure.axes[0].collections) == 8


@pytest.mark.parametrize(("T", "H"), [(1, 1), (1, 40), (2, 300), (1001, 1)])
def test_any_size_is_drawn(T, H):
    assert render(plots.plot_states(*histories(T, H))).startswith(b"\x89PNG")


def test_states_that_never_move_are_drawn():
    assert render(plots.plot_states(np.zeros((1500, 12)), np.zeros((1500, 12))))


def test_no_state_of_matplotlib_is_touched():
    before = {name: value for name, value in mpl.rcParams.items() if name != "backend"}
    render(plots.plot_states(*histories(10, 3)))
    after = {name: value for name, value in mpl.rcParams.items() if name != "backend"}
    assert after == before
    assert "matplotlib.pyplot" not in vars(plots)


@pytest.mark.parametrize(
    ("H", "C", "got"),
    [
        (np.zeros(3), np.zeros(3), "[3] and [3]"),
        (np.zeros((4, 3)), np.zeros((5, 3)), "[4, 3] and [5, 3]"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "[0, 3] and [0, 3]"),
    ],
)
def test_malformed_histories_are_refused(H, C, got):
    with pytest.raises(ValueError) as refusal:
        plots.plot_states(H, C)
    assert str(refusal.value) == f"H, C: expected two histories [T, H] of one shape, got {got}"
