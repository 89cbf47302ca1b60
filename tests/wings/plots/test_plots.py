"""Pictures: the lines carry the numbers, and a picture of anything can be drawn quickly."""

import io
import time

import matplotlib as mpl
import numpy as np
import pytest

from jlstm import plots, reference
from jlstm.plots.states import STYLES


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
    styles = [STYLES[unit % 4] for unit in range(10)]
    assert len(set(STYLES)) == 4
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


def test_gates_are_heat_maps_of_their_values():
    i, g, c = np.random.RandomState(0).rand(3, 7, 4) * [[[1]], [[-1]], [[3]]]
    figure = plots.plot_gates({"input gate i": i, "candidate g": g, "cell c": c})
    panels, bars = figure.axes[:3], figure.axes[3:]
    for axes, values, limits in zip(panels, (i, g, c), (1, 1, c.max()), strict=True):
        (image,) = axes.get_images()
        np.testing.assert_array_equal(image.get_array(), values.T)
        assert image.get_clim() == (0 if values is i else -limits, limits)
        assert axes.get_xlabel() == "step t"
    assert [axes.get_title() for axes in panels] == ["input gate i", "candidate g", "cell c"]
    assert panels[0].get_ylabel() == "unit" and len(bars) == 3
    assert render(figure).startswith(b"\x89PNG")
    assert render(plots.plot_gates({"f": np.ones((1, 1))}))


@pytest.mark.parametrize(
    ("gates", "got"),
    [
        ({}, "none"),
        ({"i": np.zeros(3)}, "[3]"),
        ({"i": np.zeros((4, 3)), "f": np.zeros((5, 3))}, "[4, 3], [5, 3]"),
        ({"i": np.zeros((0, 3))}, "[0, 3]"),
    ],
)
def test_malformed_gates_are_refused(gates, got):
    with pytest.raises(ValueError) as refusal:
        plots.plot_gates(gates)
    assert str(refusal.value) == f"gates: expected arrays [T, H] of one shape, got {got}"


# --- training


def points(line):
    """The x and the y of a line."""
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def curves(seeds, steps):
    """Losses that fall, with a spread over seeds that is known."""
    return np.exp(-np.arange(steps) / steps) * np.linspace(1, 2, seeds)[:, None]


def test_training_shows_median_band_and_share_of_solved_seeds():
    losses = {"one": curves(11, 80), "two": 3 * curves(11, 80)}
    solved_at = {"one": np.array([10, 40, 40, *[-1] * 8]), "two": np.full(11, -1)}
    figure = plots.plot_training(losses, solved_at, baseline=0.5)
    upper, lower = figure.axes
    assert upper.get_yscale() == "log" and upper.get_ylabel() == "loss"
    one, two, baseline = upper.get_lines()
    for line, name in ((one, "one"), (two, "two")):
        np.testing.assert_array_equal(points(line)[0], np.arange(1, 81))
        np.testing.assert_allclose(points(line)[1], np.median(losses[name], axis=0))
    assert set(points(baseline)[1]) == {0.5}
    band = np.asarray(upper.collections[0].get_paths()[0].vertices)
    low, high = np.quantile(losses["one"], (0.1, 0.9), axis=0)
    np.testing.assert_allclose(band[:, 1].min(), low.min())
    np.testing.assert_allclose(band[:, 1].max(), high.max())
    step, none = lower.get_lines()
    np.testing.assert_allclose(points(step)[0], [0, 10, 40, 40, 80])
    np.testing.assert_allclose(points(step)[1], np.array([0, 1, 2, 3, 3]) / 11)
    assert not np.any(points(none)[1])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]
    assert len(render(figure)) > 1000


def test_long_training_is_drawn_as_means_of_spans():
    losses = curves(5, 3001)
    figure = plots.plot_training({"": losses}, {"": np.zeros(5)})
    upper, lower = figure.axes
    (line,) = upper.get_lines()
    assert not figure.legends and lower.get_xlabel() == "step (losses are means of 31)"
    assert len(points(line)[0]) == 97
    np.testing.assert_allclose(points(line)[0][:2], [16, 47])
    np.testing.assert_allclose(points(line)[1][0], np.median(losses[:, :31].mean(axis=1)))


def test_training_that_diverged_is_drawn_as_far_as_it_went():
    losses = curves(3, 50)
    losses[0, 20:] = np.inf
    losses[1, 30:] = np.nan
    losses[:, 40:] = np.nan
    figure = plots.plot_training({"": losses}, {"": np.full(3, -1)})
    (line,) = figure.axes[0].get_lines()
    assert len(points(line)[0]) == 40
    np.testing.assert_array_equal(points(line)[1][:20], losses[1, :20])
    np.testing.assert_array_equal(points(line)[1][20:30], losses[2, 20:30])
    assert (points(line)[1][30:] == np.inf).all()  # most of the seeds
    assert len(render(figure)) > 1000


def test_success_is_a_heat_map_with_numbers():
    rates = np.array([[0.0, 0.25, 1.0], [0.5, 0.75, 1.0]])
    figure = plots.plot_success(rates, ["a", "b"], ["x", "y", "z"], seeds=8)
    axes, bar = figure.axes
    shown = [text.get_text() for text in axes.texts]
    assert shown == ["0%", "25%", "100%", "50%", "75%", "100%"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y", "z"]
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), rates)
    assert bar.get_ylabel() == "solved, of 8 seeds"
    assert len(render(figure)) > 1000


def test_panels_show_median_and_band_of_each_setting_on_common_axes():
    settings = {"1": curves(11, 80), "chrono": 2 * curves(11, 80)}
    losses = {name: {**settings, "1": k * settings["1"]} for k, name in enumerate("abc", 3)}
    figure = plots.plot_panels(losses, baseline=0.5)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c"]  # the fourth is left out
    for axes, panel in zip(figure.axes, losses.values(), strict=True):
        one, chrono, baseline = axes.get_lines()
        for line, name in ((one, "1"), (chrono, "chrono")):
            np.testing.assert_allclose(points(line)[1], np.median(panel[name], axis=0))
        assert set(points(baseline)[1]) == {0.5} and axes.get_yscale() == "log"
        band = np.asarray(axes.collections[0].get_paths()[0].vertices)[:, 1]
        low, high = np.quantile(panel["1"], (0.1, 0.9), axis=0)
        np.testing.assert_allclose([band.min(), band.max()], [low.min(), high.max()])
        assert axes.get_ylim() == figure.axes[0].get_ylim()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1", "chrono"]
    assert len(render(figure)) > 1000
    assert not plots.plot_panels({"a": {"": curves(3, 5)}}).legends


def test_a_heat_map_has_room_for_its_names():
    columns = ["forget bias 1", "forget bias chrono"]
    figure = plots.plot_success(np.ones((1, 2)), ["no_output_activation"], columns)
    render(figure)  # which lays it out
    first, second = (label.get_window_extent() for label in figure.axes[0].get_xticklabels())
    assert first.x1 < second.x0


def test_pictures_of_training_refuse_what_does_not_fit():
    same = "losses: expected the same settings in each panel, got "
    with pytest.raises(ValueError, match=f"{same}a: x; b: y"):
        plots.plot_panels({"a": {"x": np.ones((2, 3))}, "b": {"y": np.ones((2, 3))}})
    for nothing in ({}, {"a": {}}):
        with pytest.raises(ValueError, match=same):
            plots.plot_panels(nothing)
    with pytest.raises(ValueError, match=r"losses: expected shapes \[S, steps\], got \[3\]"):
        plots.plot_panels({"a": {"x": np.ones(3)}})
    with pytest.raises(ValueError, match="expected the same names, got a and b"):
        plots.plot_training({"a": np.ones((2, 3))}, {"b": np.ones(2)})
    with pytest.raises(ValueError, match=r"a: expected shapes \[S, steps\] and \[S\]"):
        plots.plot_training({"a": np.ones((2, 3))}, {"a": np.ones(3)})
    with pytest.raises(ValueError, match="rates: expected a name a row and a column"):
        plots.plot_success(np.ones((2, 3)), ["a"], ["x", "y", "z"])
