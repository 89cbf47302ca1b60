"""Pictures of what the other rooms return, as `matplotlib.figure.Figure`, free of global state.

`figure.savefig("states.png")` writes one into a file. A notebook that was told `%matplotlib inline`
once shows the one that a cell ends in; without it, as pyplot is left alone here, only its name.
"""

from jlstm._src.modules import extra, publish

with extra("plots"):
    from jlstm.plots.gradients import (
        plot_lyapunov,
        plot_norms,
        plot_saliency,
        plot_singular_values,
        plot_truncation,
    )
    from jlstm.plots.states import plot_gates, plot_states
    from jlstm.plots.training import plot_panels, plot_success, plot_training

__all__ = [
    "plot_gates",
    "plot_lyapunov",
    "plot_norms",
    "plot_panels",
    "plot_saliency",
    "plot_singular_values",
    "plot_states",
    "plot_success",
    "plot_training",
    "plot_truncation",
]

publish(__name__, globals())
