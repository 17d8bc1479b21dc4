"""Every layer against torch's of the same name: outputs, gradients, settings and errors."""
import numpy as np
import pytest

from minilp import nn
from minilp.autograd import Tensor

IMAGE, ROWS = (3, 4, 9, 8), (5, 6)

LAYERS = [
    ("Linear", (6, 3), {}, ROWS),
    ("Linear", (6, 3, False), {}, (2, 5, 6)),
    ("Conv2d", (4, 6, 3), {}, IMAGE),
    ("Conv2d", (4, 6, (3, 2), (2, 1), (1, 0), (1, 2)), {}, IMAGE),
    ("Conv2d", (4, 6, 3, 2, 1, 1, 2, False), {}, IMAGE),
    ("Conv2d", (4, 4, 3), {"padding": "same", "dilation": 2, "groups": 4}, IMAGE),
    ("Conv2d", (4, 2, 1), {"padding": "valid"}, IMAGE),
    ("BatchNorm2d", (4,), {}, IMAGE),
    ("BatchNorm2d", (4, 1e-3, None), {}, IMAGE),
    ("BatchNorm2d", (4,), {"affine": False, "momentum": 0.4}, IMAGE),
    ("BatchNorm2d", (4,), {"track_running_stats": False, "bias": False}, IMAGE),
    ("LayerNorm", (6,), {}, ROWS),
    ("LayerNorm", ((9, 8), 1e-3, False), {}, IMAGE),
    ("LayerNorm", (6,), {"bias": False}, ROWS),
    ("ReLU", (), {}, IMAGE),
    ("GELU", (), {}, ROWS),
    ("GELU", ("tanh",), {}, ROWS),
    ("Tanh", (), {}, ROWS),
    ("Sigmoid", (), {}, ROWS),
    ("Softmax", (1,), {}, IMAGE),
    ("MaxPool2d", (2,), {}, IMAGE),
    ("MaxPool2d", ((3, 2), 2, (1, 0)), {}, IMAGE),
    ("AvgPool2d", (2,), {}, IMAGE),
    ("AvgPool2d", (3, 2, 1), {}, IMAGE),
    ("AdaptiveAvgPool2d", (1,), {}, IMAGE),
    ("AdaptiveAvgPool2d", ((3, 5),), {}, IMAGE),
    ("Flatten", (), {}, IMAGE),
    ("Flatten", (0, 2), {}, IMAGE),
    ("Identity", (), {}, ROWS),
    ("Dropout", (0.0,), {}, ROWS),
]


@pytest.mark.parametrize(("name", "args", "options", "shape"), LAYERS)
def test_equals_torch(torch, name, args, options, shape):
    """Two training passes with gradients, then evaluation; the state goes through state_dict."""
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    ours.load_state_dict(theirs.state_dict())
    rng = np.random.default_rng(0)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        p.data[...] = rng.normal(size=p.shape)
        q.data.copy_(torch.tensor(p.data))
    for training in (True, True, False):
        ours.train(training)
        theirs.train(training)
        x = rng.normal(size=shape).astype(np.float32)
        a, b = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        out, expected = ours(a), theirs(b)
        assert out.dtype == np.float32
        np.testing.assert_allclose(out.data, expected.detach().numpy(), rtol=1e-5, atol=3e-6)
        grad = rng.normal(size=out.shape).astype(np.float32)
        ours.zero_grad()
        theirs.zero_grad()
        out.backward(grad)
        expected.backward(torch.tensor(grad))
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-4, atol=1e-5)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-4, atol=3e-5)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding_idx", [None, 2, -1])
def test_embedding_equals_torch(torch, padding_idx):
    ours, theirs = nn.Embedding(5, 3, padding_idx), torch.nn.Embedding(5, 3, padding_idx)
    if padding_idx is not None:
        assert not ours.weight.data[padding_idx].any()
    ours.load_state_dict(theirs.state_dict())
    index = np.array([[1, 2, 2], [4, 0, 1]])
    out, expected = ours(index), theirs(torch.tensor(index))
    np.testing.assert_array_equal(out.data, expected.detach().numpy())
    grad = np.random.default_rng(0).normal(size=out.shape).astype(np.float32)
    out.backward(grad)
    expected.backward(torch.tensor(grad))
    np.testing.assert_allclose(ours.weight.grad, theirs.weight.grad.numpy(), rtol=1e-6)


def test_losses_equal_torch(torch):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 4)).astype(np.float32), np.array([0, 3, 1, -100, 2, 1])
    target = rng.normal(size=(6, 4)).astype(np.float32)
    for reduction in ("mean", "sum", "none"):
        ours = nn.CrossEntropyLoss(reduction=reduction, label_smoothing=0.1)(Tensor(logits), labels)
        theirs = torch.nn.CrossEntropyLoss(reduction=reduction, label_smoothing=0.1)(torch.tensor(logits),
                                                                                    torch.tensor(labels))
        np.testing.assert_allclose(ours.data, theirs.numpy(), rtol=1e-5, atol=1e-6)
        ours = nn.MSELoss(reduction)(Tensor(logits), target)
        theirs = torch.nn.MSELoss(reduction=reduction)(torch.tensor(logits), torch.tensor(target))
        np.testing.assert_allclose(ours.data, theirs.numpy(), rtol=1e-6)


def test_dropout_drops_in_training_only():
    layer, x = nn.Dropout(0.3), Tensor(np.ones((200, 200), np.float32), requires_grad=True)
    out = layer(x)
    kept = out.data != 0
    assert abs(kept.mean() - 0.7) < 0.01
    np.testing.assert_allclose(out.data[kept], 1 / 0.7, rtol=1e-6)
    out.sum().backward()
    np.testing.assert_array_equal(x.grad, out.data)
    assert not np.array_equal(layer(x).data, out.data)
    np.testing.assert_array_equal(layer.eval()(x).data, x.data)


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(4, 8, 3, padding=1), lambda: nn.BatchNorm2d(4), nn.ReLU,
                                  lambda: nn.MaxPool2d(2), lambda: nn.AvgPool2d(2)])
def test_images_keep_the_batch_innermost(make):
    """Whatever the input's memory order, what a 4-D layer makes is stored (C, H, W, N)."""
    stored = np.random.default_rng(0).normal(size=(4, 6, 6, 5)).astype(np.float32)
    layer = make().eval()
    out = layer(Tensor(stored.transpose(3, 0, 1, 2))).data
    assert out.transpose(1, 2, 3, 0).flags.c_contiguous


def test_flatten_of_pooled_pictures_is_a_view():
    x = Tensor(np.zeros((8, 4, 1, 1), np.float32).transpose(1, 2, 3, 0).copy().transpose(3, 0, 1, 2))
    assert np.shares_memory(nn.Flatten()(x).data, x.data)


@pytest.mark.parametrize(("make", "error", "text"), [
    (lambda: nn.Linear(0, 3), ValueError, r"in_features"),
    (lambda: nn.Conv2d(4, 6, 3, groups=4), ValueError, r"groups: 4 does not divide"),
    (lambda: nn.Conv2d(4, 6, 3, stride=2, padding="same"), ValueError, r"'same' needs stride 1"),
    (lambda: nn.Conv2d(4, 6, 2, padding="same"), ValueError, r"odd kernel"),
    (lambda: nn.Conv2d(4, 6, 2, padding="full"), ValueError, r"padding: expected.*'full'"),
    (lambda: nn.Conv2d(4, 6, 2.5), TypeError, r"kernel_size"),
    (lambda: nn.Dropout(1.5), ValueError, r"p: .*1\.5"),
    (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError, r"padding_idx"),
    (lambda: nn.BatchNorm2d(3)(Tensor(np.zeros((2, 4, 3, 3), np.float32))), ValueError, r"\(N, 3, H, W\)"),
    (lambda: nn.Linear(2, 2)(Tensor(np.zeros((2, 3), np.float32))), ValueError, r"\(2, 3\)"),
    (lambda: nn.Conv2d(2, 2, 1)(Tensor(np.zeros((2, 3, 4, 4), np.float32))), ValueError, r"3"),
    (lambda: nn.Conv2d(2, 2, 1, q="potq"), TypeError, r"q: expected.*str"),
])
def test_errors_name_the_argument(make, error, text):
    with pytest.raises(error, match=text):
        make()
