"""Optimizers, learning rate schedules and gradient clipping, under PyTorch's names and with PyTorch's numbers."""
from minilp.optim.adam import Adam, AdamW
from minilp.optim.clip import clip_grad_norm_, clip_grad_value_
from minilp.optim.madam import Madam
from minilp.optim.onecycle import OneCycleLR
from minilp.optim.optimizer import Optimizer
from minilp.optim.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    InverseSqrtLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    StepLR,
)
from minilp.optim.sequential import SequentialLR
from minilp.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "ConstantLR", "CosineAnnealingLR", "InverseSqrtLR", "LRScheduler", "LambdaLR",
           "LinearLR", "Madam", "MultiStepLR", "OneCycleLR", "Optimizer", "SequentialLR", "StepLR",
           "clip_grad_norm_", "clip_grad_value_"]
