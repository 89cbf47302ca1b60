"""Plots of the results of jlstm, as `matplotlib.figure.Figure`, without pyplot or global state.

`figure.savefig("states.png")` writes a file; after `%matplotlib inline` a notebook shows a figure.
"""

# fmt: off
# isort: off
from jlstm._src.modules import extra, publish

with extra("plots"):
    from jlstm.plots.gradients import (
        plot_lyapunov, plot_norms, plot_saliency, plot_singular_values, plot_truncation,
    )
    from jlstm.plots.series import plot_forecast
    from jlstm.plots.states import plot_gates, plot_states
    from jlstm.plots.training import plot_panels, plot_success, plot_training

__all__ = [
    "plot_forecast", "plot_gates", "plot_lyapunov", "plot_norms", "plot_panels", "plot_saliency",
    "plot_singular_values", "plot_states", "plot_success", "plot_training", "plot_truncation",
]

publish(__name__, globals())
