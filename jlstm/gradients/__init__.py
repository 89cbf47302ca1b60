"""How gradients travel through a recurrent network, a file for each question.

Experiments on a sequence take `(params, xs, state, *, initial_state, reset, mask, cell)` as
`jlstm.unroll` does. `params` may also be the layers of a stack, a plain tuple: the arguments are
then those of `jlstm.unroll_stack` with `cell` in every layer, and s is the state of all layers.
"""

from jlstm._src.modules import publish
from jlstm.gradients.curvature import (
    HessianTrace,
    LeadingEigenvalue,
    gauss_newton_vector_product,
    hessian_trace,
    hessian_vector_product,
    leading_eigenvalue,
)
from jlstm.gradients.flow import GradientFlow, gradient_flow
from jlstm.gradients.initialisation import InitialisationStudy, initialisation_study
from jlstm.gradients.jacobians import (
    JacobianProducts,
    SingularValues,
    StateJacobians,
    jacobian_products,
    singular_values,
    state_jacobians,
)
from jlstm.gradients.lyapunov import LyapunovSpectrum, lyapunov_spectrum
from jlstm.gradients.rtrl import RTRLGradient, rtrl_gradient
from jlstm.gradients.sensitivity import (
    InputSensitivity,
    MemoryHorizon,
    input_sensitivity,
    memory_horizon,
)
from jlstm.gradients.truncation import (
    TruncatedGradient,
    TruncationStudy,
    truncated_gradient,
    truncation_study,
)

__all__ = [
    "GradientFlow",
    "HessianTrace",
    "InitialisationStudy",
    "InputSensitivity",
    "JacobianProducts",
    "LeadingEigenvalue",
    "LyapunovSpectrum",
    "MemoryHorizon",
    "RTRLGradient",
    "SingularValues",
    "StateJacobians",
    "TruncatedGradient",
    "TruncationStudy",
    "gauss_newton_vector_product",
    "gradient_flow",
    "hessian_trace",
    "hessian_vector_product",
    "initialisation_study",
    "input_sensitivity",
    "jacobian_products",
    "leading_eigenvalue",
    "lyapunov_spectrum",
    "memory_horizon",
    "rtrl_gradient",
    "singular_values",
    "state_jacobians",
    "truncated_gradient",
    "truncation_study",
]

publish(__name__, globals())
