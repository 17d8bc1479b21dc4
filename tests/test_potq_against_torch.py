"""potq end to end against an independent fake-quantised twin in torch, in float64: loss and every gradient."""
import numpy as np

from minilp import models, nn, recipe
from minilp.autograd import Tensor


def pot5(torch, x, threshold=None):
    """potq.md section 2 by float logarithms: values, not codes."""
    top = x.abs().max() if threshold is None else threshold
    beta = torch.round(torch.log2(top)) - 7
    k = torch.round(torch.log2(x.abs().clamp_min(1e-300))) - beta
    value = torch.sign(x) * 2.0 ** (k.clamp(max=7) + beta)
    return torch.where(k < -7, torch.zeros_like(x), value)


def make_conv(torch):
    """A convolution whose three products see quantised operands; straight through everywhere, PRC as declared."""
    grad = torch.nn.grad

    class Conv(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w, gamma, padding):
            largest = x.abs().max()
            t = gamma.detach() * largest
            xq, wq = pot5(torch, x.clamp(-t, t), t), pot5(torch, w - w.mean())
            ctx.save_for_backward(x, xq, wq, t, largest)
            ctx.padding = padding
            return torch.nn.functional.conv2d(xq, wq, padding=padding)

        @staticmethod
        def backward(ctx, g):
            x, xq, wq, t, largest = ctx.saved_tensors
            gq = pot5(torch, g)
            dx = grad.conv2d_input(x.shape, wq, gq, padding=ctx.padding)
            dw = grad.conv2d_weight(xq, wq.shape, gq, padding=ctx.padding)
            outside = x.abs() > t
            return dx.masked_fill(outside, 0), dw, largest * (dx * x.sign() * outside).sum(), None

    return Conv.apply


def test_loss_and_every_gradient(torch):
    model = recipe.apply("potq", models.build("small_cnn"))
    x, y = np.random.default_rng(3).standard_normal((8, 3, 16, 16)).astype(np.float32), np.arange(8)
    loss = nn.functional.cross_entropy(model(Tensor(x, requires_grad=True)), y)
    loss.backward()

    t = torch.nn.functional
    conv = make_conv(torch)
    p = {name: torch.from_numpy(np.array(value.data, np.float64)).requires_grad_()
         for name, value in model.named_parameters()}
    h = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    for i in (1, 2, 3):
        h = conv(h, p[f"conv{i}.weight"], p[f"conv{i}.act_prc_gamma"], 1)
        h = t.relu(t.batch_norm(h, None, None, p[f"bn{i}.weight"], p[f"bn{i}.bias"], training=True))
        h = t.max_pool2d(h, 2) if i < 3 else h.mean((2, 3), keepdim=True)
    logits = conv(h, p["fc.weight"][:, :, None, None], p["fc.act_prc_gamma"], 0)[:, :, 0, 0] + p["fc.bias"]
    theirs = t.cross_entropy(logits, torch.from_numpy(y))
    theirs.backward()

    assert abs(loss.item() - theirs.item()) < 1e-4 * theirs.item()
    for name, value in model.named_parameters():
        expected = p[name].grad.numpy()
        # A float32 value within rounding of sqrt 2 times a power may take the other code: a few, never many.
        difference = np.linalg.norm(value.grad - expected) / np.linalg.norm(expected)
        assert difference < 0.02, (name, difference)
