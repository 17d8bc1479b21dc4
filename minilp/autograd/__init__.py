"""The engine: tensors that remember how they were computed, and their gradients. It knows nothing of number formats."""

from minilp.autograd import ops
from minilp.autograd.function import Function
from minilp.autograd.grad_mode import enable_grad, is_grad_enabled, no_grad
from minilp.autograd.gradcheck import GradcheckError, directional_check, gradcheck
from minilp.autograd.tensor import Tensor

__all__ = [
    "Function", "GradcheckError", "Tensor", "directional_check", "enable_grad", "gradcheck", "is_grad_enabled",
    "no_grad", "ops",
]
