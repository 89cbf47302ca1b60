"""Pictures of what the other rooms return, as `matplotlib.figure.Figure`, free of global state."""

from jlstm.plots.states import STYLES, plot_states

__all__ = ["STYLES", "plot_states"]
