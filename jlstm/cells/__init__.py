"""The LSTM cell and its family, under one signature: `cell(params, state, x) -> (state, y)`."""

from jlstm.cells.activations import Activation
from jlstm.cells.gates import PeepholeParams
from jlstm.cells.general import Options, general
from jlstm.cells.standard import cell, preactivation

__all__ = ["Activation", "Options", "PeepholeParams", "cell", "general", "preactivation"]
