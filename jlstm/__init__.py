"""The LSTM for JAX research: pure functions over pytrees, exact under every transformation.

>>> import jax, jlstm
>>> key = jax.random.key(0)
>>> params = jlstm.init(key, input_size=8, hidden_size=32)
>>> xs = jax.random.normal(key, (100, 16, 8))               # [T, B, D]
>>> state, hs = jax.jit(jlstm.unroll)(params, xs)           # hs [T, B, H]
>>> state, h = jlstm.cell(params, state, xs[0])             # one more step
>>> loss = lambda params: (jlstm.unroll(params, xs)[1] ** 2).mean()
>>> gradient = jax.jit(jax.grad(loss))(params)              # LSTMParams, as params

The sub-packages `cells`, `experiments`, `gradients`, `initializers`, `interop`, `plans`, `plots`
and `reference` are imported when they are first used.
"""

from typing import TYPE_CHECKING

from jlstm._src.lstm import LSTMParams, LSTMState, init
from jlstm._src.lstm import lstm as cell
from jlstm._src.masks import episode_starts, length_mask, select
from jlstm._src.modules import lazy_modules
from jlstm._src.stack import Bidirectional, init_stack, step_stack, zero_state
from jlstm._src.unroll import unroll
from jlstm._src.unroll_stack import unroll_stack

if TYPE_CHECKING:
    from jlstm import cells, gradients, initializers, interop, plans, reference
    from jlstm import experiments as experiments
    from jlstm import plots as plots

__version__ = "0.2.0"

# fmt: off
__all__ = [
    "Bidirectional", "LSTMParams", "LSTMState", "cell", "cells", "episode_starts", "gradients",
    "init", "init_stack", "initializers", "interop", "length_mask", "plans", "reference",
    "select", "step_stack", "unroll", "unroll_stack", "zero_state",
]
# fmt: on

_bare = ("cells", "gradients", "initializers", "interop", "plans", "reference")
_extra = ("experiments", "plots")  # not in __all__, which a bare install can import
__getattr__ = lazy_modules(__name__, (*_bare, *_extra))


def __dir__() -> list[str]:
    return sorted([*__all__, *_extra, "__version__"])
