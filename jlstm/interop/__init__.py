"""In and out of every neighbour: a room for each, and plain files. Nothing is imported unless used.

>>> import jax, jlstm, torch
>>> from jlstm.interop.torch import from_torch, to_torch
>>> lstm = torch.nn.LSTM(2, 3, num_layers=2, bidirectional=True)
>>> params = from_torch(lstm)                                     # a stack
>>> states, hs = jlstm.unroll_stack(params, jax.numpy.ones((10, 5, 2)))
>>> hs.shape
(10, 5, 6)
>>> lstm.load_state_dict(to_torch(params))
<All keys matched successfully>

Every room has the same four names: `from_…` makes jlstm's parameters of the neighbour's, `to_…` the
neighbour's of jlstm's, `state_from_…` and `state_to_…` do it for what is carried from step to step.
JAX's arrays stay JAX's, so that these are pure functions to differentiate through; all others
become NumPy arrays of their own, in the dtype they had. params → neighbour → params is exact to the
bit (but for the 1 that haiku adds to its forget gate, see there). What a neighbour cannot hold, or
jlstm cannot express, is refused by name.

| room | neighbour | jlstm |
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

`onnx` is of another kind: it reads nodes of models, attributes and all, as functions, and writes
stacks as models that other runtimes run.
"""

from typing import TYPE_CHECKING

from jlstm._src.modules import lazy_modules

if TYPE_CHECKING:
    from jlstm.interop import cudnn, equinox, files, flax, gates, haiku, keras, onnx, torch

__all__ = ["cudnn", "equinox", "files", "flax", "gates", "haiku", "keras", "onnx", "torch"]

__getattr__ = lazy_modules(__name__, __all__)
