"""Gradient experiments on recurrent networks: one pure function for each question.

The functions that run over a sequence share these arguments, as in `jlstm.unroll`:

- `params`: the parameters of `cell`. A plain tuple is a stack, with one entry for each layer.
- `xs`: the inputs, `[T, *B, D]`, or a pytree of arrays `[T, *B, …]` for a cell of your own.
- `state`: the state carried in. None starts from `initial_state`.
- `initial_state`: the state in which sequences begin. None is zeros; a cell of your own needs one
  of the two states. For a stack both are tuples with one entry for each layer.
- `reset`: bool `[T, *B]`, a new sequence begins at t, and no gradient crosses.
- `mask`: bool `[T, *B]`, False skips step t: the state is held, and the output is zero.
- `cell`: `(params, state, x) -> (state, y)`, the cell of every layer. By default the LSTM.
- `loss`: `(final_state, hs) -> scalar`, of the results of `unroll`.

s_t is the state after step t, of all layers for a stack. Some functions treat it as a vector of N
numbers, its arrays side by side: N = 2H for an LSTM, h before c. A cell of your own then has a
state of arrays `[*B, N_k]`, and treats the rows of the batch independently.

A malformed argument raises `TypeError` or `ValueError` before anything is computed. So does a layer
with two directions, and a mask that is known to skip every step.
"""

# fmt: off
# isort: off
from jlstm._src.modules import publish
from jlstm.gradients.curvature import (
    HessianTrace, LeadingEigenvalue, gauss_newton_vector_product, hessian_trace,
    hessian_vector_product, leading_eigenvalue,
)
from jlstm.gradients.equilibria import FixedPoints, fixed_points
from jlstm.gradients.flow import GradientFlow, gradient_flow
from jlstm.gradients.initialisation import InitialisationStudy, initialisation_study
from jlstm.gradients.jacobians import (
    JacobianProducts, SingularValues, StateJacobians, jacobian_products, singular_values,
    state_jacobians,
)
from jlstm.gradients.lyapunov import LyapunovSpectrum, lyapunov_spectrum
from jlstm.gradients.rtrl import RTRLResult, rtrl_gradient
from jlstm.gradients.sensitivity import (
    InputSensitivity, MemoryHorizon, input_sensitivity, memory_horizon,
)
from jlstm.gradients.snap import SnapInfluence
from jlstm.gradients.truncation import (
    TruncatedGradient, TruncationStudy, truncated_gradient, truncation_study,
)

__all__ = [
    "FixedPoints", "GradientFlow", "HessianTrace", "InitialisationStudy", "InputSensitivity",
    "JacobianProducts", "LeadingEigenvalue", "LyapunovSpectrum", "MemoryHorizon", "RTRLResult",
    "SingularValues", "SnapInfluence", "StateJacobians", "TruncatedGradient", "TruncationStudy",
    "fixed_points", "gauss_newton_vector_product", "gradient_flow", "hessian_trace",
    "hessian_vector_product", "initialisation_study", "input_sensitivity", "jacobian_products",
    "leading_eigenvalue", "lyapunov_spectrum", "memory_horizon", "rtrl_gradient",
    "singular_values", "state_jacobians", "truncated_gradient", "truncation_study",
]

publish(__name__, globals())
