"""The LSTM cell and its family, under one signature: `cell(params, state, x) -> (state, y)`."""

from jlstm.cells.standard import cell, preactivation

__all__ = ["cell", "preactivation"]
