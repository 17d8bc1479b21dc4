"""Gradient clipping against torch."""
import math

import numpy as np
import pytest

from minilp.autograd.parameter import Parameter
from minilp.optim import clip_grad_norm_, clip_grad_value_


def both(torch):
    rng = np.random.default_rng(1)
    ours, theirs = [], []
    for shape in [(4, 5), (3,), (2, 2)]:
        ours.append(Parameter(np.zeros(shape, np.float32)))
        theirs.append(torch.zeros(shape, requires_grad=True))
        grad = rng.normal(size=shape).astype(np.float32)
        ours[-1].grad, theirs[-1].grad = grad.copy(), torch.tensor(grad)
    return [*ours, Parameter([1.0])], theirs


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_norm(torch, max_norm, norm_type):
    ours, theirs = both(torch)
    total = clip_grad_norm_(ours, max_norm, norm_type)
    assert total == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)), rel=1e-6)
    for p, q in zip(ours[:-1], theirs, strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-6)
    assert ours[-1].grad is None


def test_value(torch):
    ours, theirs = both(torch)
    clip_grad_value_(ours, 0.3)
    torch.nn.utils.clip_grad_value_(theirs, 0.3)
    for p, q in zip(ours[:-1], theirs, strict=True):
        np.testing.assert_array_equal(p.grad, q.grad.numpy())


@pytest.mark.parametrize("norm_type", [2.0, math.inf])
def test_nan_is_never_hidden(norm_type):
    p, q = Parameter([0.0, 0.0]), Parameter([0.0])
    p.grad, q.grad = np.array([np.nan, 1.0], np.float32), np.array([5.0], np.float32)
    with pytest.raises(FloatingPointError, match=r"nan"):
        clip_grad_norm_([q, p], 1.0, norm_type, error_if_nonfinite=True)
    assert q.grad == 5.0
    assert math.isnan(clip_grad_norm_([q, p], 1.0, norm_type))
    assert np.isnan(q.grad).all()


def test_errors():
    with pytest.raises(ValueError, match=r"max_norm.*-1"):
        clip_grad_norm_([], -1)
    with pytest.raises(ValueError, match=r"clip_value.*-1"):
        clip_grad_value_([], -1)
