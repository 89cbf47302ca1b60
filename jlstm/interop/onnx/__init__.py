"""LSTM nodes of ONNX models as JAX functions, and stacks as ONNX models.

`load` reads one node, `load_all` every node of a model, and `save` writes a stack. The equations
are those of ONNX's operator LSTM. Where its specification is unclear, jlstm follows onnxruntime.
"""

from jlstm._src.modules import publish
from jlstm.interop.onnx.operator import Node, NodeParams, load, load_all
from jlstm.interop.onnx.writing import save

__all__ = ["Node", "NodeParams", "load", "load_all", "save"]

publish(__name__, globals())
