"""How gradients travel through a recurrent network, a file for each question."""

from jlstm.gradients.flow import GradientFlow, gradient_flow
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

__all__ = [
    "GradientFlow",
    "JacobianProducts",
    "LyapunovSpectrum",
    "RTRLGradient",
    "SingularValues",
    "StateJacobians",
    "gradient_flow",
    "jacobian_products",
    "lyapunov_spectrum",
    "rtrl_gradient",
    "singular_values",
    "state_jacobians",
]
