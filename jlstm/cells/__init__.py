"""The LSTM cell and its family, under one signature: `cell(params, state, x) -> (state, y)`.

Each cell has its equations and its paper in its docstring, and an `init_…` for its parameters. All
run in `unroll` and in `unroll_stack`:

>>> import jax, jlstm
>>> params = jlstm.cells.init_gru(jax.random.key(0), 2, 3)
>>> state, hs = jlstm.unroll(params, jax.numpy.ones((10, 2)), cell=jlstm.cells.gru)
>>> hs.shape
(10, 3)
"""

# fmt: off
# isort: off
from jlstm._src.cell import Layout, affine, affine_in_closed_form, cell_of
from jlstm._src.lstm import init as init_lstm, lstm
from jlstm._src.matmul import preactivation
from jlstm._src.modules import publish
from jlstm.cells.ablations import (
    init_no_forget_gate, init_no_input_activation, init_no_input_gate, init_no_output_activation,
    init_no_output_gate, no_forget_gate, no_input_activation, no_input_gate, no_output_activation,
    no_output_gate,
)
from jlstm.cells.activations import Activation
from jlstm.cells.baselines import ElmanParams, GRUParams, RNNState, elman, gru, init_elman, init_gru
from jlstm.cells.full_gate import (
    FullGateParams, FullGateState, full_gate_recurrence, init_full_gate_recurrence,
)
from jlstm.cells.gates import PeepholeParams, init_gates
from jlstm.cells.general import Options, general
from jlstm.cells.layer_norm import LayerNormParams, init_layer_norm, layer_norm
from jlstm.cells.peephole import (
    coupled_forget, coupled_input, init_coupled_forget, init_coupled_input, init_peephole, peephole,
)
from jlstm.cells.projected import ProjectedParams, init_projected, projected
from jlstm.cells.slstm import SLSTMState, init_slstm, slstm, slstm_exponential_forget

__all__ = [
    "Activation", "ElmanParams", "FullGateParams", "FullGateState", "GRUParams",
    "LayerNormParams", "Layout", "Options", "PeepholeParams", "ProjectedParams", "RNNState",
    "SLSTMState", "affine", "affine_in_closed_form", "cell_of", "coupled_forget", "coupled_input",
    "elman", "full_gate_recurrence", "general", "gru", "init_coupled_forget",
    "init_coupled_input", "init_elman", "init_full_gate_recurrence", "init_gates", "init_gru",
    "init_layer_norm", "init_lstm", "init_no_forget_gate", "init_no_input_activation",
    "init_no_input_gate", "init_no_output_activation", "init_no_output_gate", "init_peephole",
    "init_projected", "init_slstm", "layer_norm", "lstm", "no_forget_gate", "no_input_activation",
    "no_input_gate", "no_output_activation", "no_output_gate", "peephole", "preactivation",
    "projected", "slstm", "slstm_exponential_forget",
]

publish(__name__, globals())
