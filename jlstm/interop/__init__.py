"""Conversions to and from other libraries, and files of parameters, a module for each.

>>> import jax, jlstm, torch
>>> from jlstm.interop.torch import from_torch, to_torch
>>> lstm = torch.nn.LSTM(2, 3, num_layers=2, bidirectional=True)
>>> params = from_torch(lstm)                                     # a stack
>>> states, hs = jlstm.unroll_stack(params, jax.numpy.ones((10, 5, 2)))
>>> hs.shape
(10, 5, 6)
>>> lstm.load_state_dict(to_torch(params))
<All keys matched successfully>

Each module for a library has four functions. `from_…` and `to_…` convert parameters,
`state_from_…` and `state_to_…` the carried state. You can differentiate through them: arrays of JAX
remain arrays of JAX, and other arrays are copied to NumPy in their dtype. A conversion to a library
and back is exact to the bit, except for the forget bias in haiku. Parameters that a library cannot
hold, or jlstm cannot express, raise an error that names them.

| module | library | jlstm |
|---|---|---|
| `torch` | `torch.nn.LSTM`, or a state dict | a stack |
| | with `proj_size` | a stack of `cells.ProjectedParams` |
| | `torch.nn.LSTMCell` | `LSTMParams` |
| `flax` | linen's and nnx's cells, alone or in `RNN` | `LSTMParams` |
| | their `Bidirectional` | `Bidirectional` |
| `equinox` | `equinox.nn.LSTMCell` | `LSTMParams` |
| `haiku` | `haiku.LSTM` | `LSTMParams` |
| `keras` | `keras.layers.LSTM`, `LSTMCell`, `RNN` of it | `LSTMParams` |
| | their `Bidirectional` | `Bidirectional` |
| `cudnn` | the flat vector of `jax.experimental.rnn` | a stack |
| `gates` | the matrices of named gates, in any order | `LSTMParams` |
| `files` | .npz and safetensors | any tree of parameters |
| `onnx` | nodes of models, as functions; writes stacks as models | a stack |
"""

from typing import TYPE_CHECKING

from jlstm._src.modules import lazy_modules

if TYPE_CHECKING:
    from jlstm.interop import cudnn, equinox, files, flax, gates, haiku, keras, onnx, torch

__all__ = ["cudnn", "equinox", "files", "flax", "gates", "haiku", "keras", "onnx", "torch"]

__getattr__ = lazy_modules(__name__, __all__)
