"""How gradients travel through a recurrent network, a file for each question."""

from jlstm.gradients.jacobians import (
    JacobianProducts,
    SingularValues,
    StateJacobians,
    jacobian_products,
    singular_values,
    state_jacobians,
)

__all__ = [
    "JacobianProducts",
    "SingularValues",
    "StateJacobians",
    "jacobian_products",
    "singular_values",
    "state_jacobians",
]
