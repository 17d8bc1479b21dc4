"""One table of operations; every row becomes a gradient check in float64 and a comparison with torch in float32."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from minilp.autograd import Tensor, gradcheck, ops


def normal(*shape):
    """A recipe for an input: standard normal values."""
    return lambda rng: np.asarray(rng.standard_normal(shape))


def positive(*shape):
    return lambda rng: np.asarray(rng.uniform(0.5, 2.0, shape))


def strided(*shape):
    """Normal values, axes stored in reverse order, every second element, last axis backwards."""
    def make(rng):
        base = rng.standard_normal([2 * n for n in reversed(shape)])
        view = base[(slice(None, None, 2),) * len(shape)].transpose()
        return view[..., ::-1]
    return make


def positive_strided(*shape):
    def make(rng):
        view = strided(*shape)(rng)
        np.abs(view, out=view)
        np.add(view, 0.5, out=view)
        return view
    return make


def chwn(*shape):
    """An activation (N, C, H, W) with the batch innermost in memory."""
    n, c, h, w = shape
    return lambda rng: rng.standard_normal((c, h, w, n)).transpose(3, 0, 1, 2)


def integers(high, *shape):
    return lambda rng: np.asarray(rng.integers(0, high, shape))


@dataclass(frozen=True)
class Case:
    op: str
    what: str
    ours: Any
    inputs: tuple
    torch: Any = None  # None: the same expression, with torch tensors
    numerical: bool = True  # False: the gradient is declared (a row that must not learn), no derivative of anything

    def arrays(self):
        rng = np.random.default_rng(zlib.crc32(f"{self.op} {self.what}".encode()))
        return [make(rng) if callable(make) else make for make in self.inputs]


def keep_mask(shape, p):
    return np.random.default_rng(5).random(shape, dtype=np.float32) >= p


A, B = (3, 4), (2, 3, 1)
MASK = np.array([[True, False, True, True], [False, False, True, False], [True, True, False, True]])
ROWS = np.array([2, 0, 2, -1])
ELEMENTWISE = [
    ("add", lambda a, b: a + b), ("sub", lambda a, b: a - b), ("mul", lambda a, b: a * b), ("div", lambda a, b: a / b),
    ("pow", lambda a, b: a ** b),
]
UNARY = ["exp", "sqrt", "log", "abs", "tanh", "sigmoid", "relu", "neg"]

CASES = [Case(op, what, fn, inputs) for op, fn in ELEMENTWISE for what, inputs in {
    "plain": (positive(*A), positive(*A)),
    "broadcast": (positive(*A), positive(*B)),
    "size-1 axes": (positive(1, 4, 1), positive(3, 1, 1)),
    "scalar operand": (positive(), positive(*A)),
    "strided": (positive_strided(3, 4), positive(4)),
}.items()]
CASES += [Case(op, what, lambda x, op=op: getattr(ops, op)(x), (make,), lambda t, x, op=op: getattr(t, op)(x))
          for op in UNARY for what, make in {
              "plain": positive(3, 4) if op in ("sqrt", "log") else normal(3, 4),
              "0-d": positive(),
              "strided": positive_strided(2, 3, 4) if op in ("sqrt", "log") else strided(2, 3, 4),
              "empty": positive(0, 3)}.items()]
CASES += [
    Case("mul", "python number", lambda x: 2.5 * x + x * 3 - 1, (normal(3),)),
    Case("sub", "reverse", lambda x: 1 - x, (normal(3),)),
    Case("div", "reverse", lambda x: 1 / x, (positive(3),)),
    Case("pow", "square", lambda x: x ** 2, (normal(3, 2),)),
    Case("pow", "cube", lambda x: x ** 3, (normal(3, 2),)),
    Case("pow", "exponent 0", lambda x: x ** 0, (normal(3),)),
    Case("pow", "root", lambda x: x ** -0.5, (positive(3),)),
    Case("pow", "reverse", lambda x: 2 ** x, (normal(3),)),
    Case("maximum", "broadcast", ops.maximum, (normal(*A), normal(*B)), lambda t, a, b: t.maximum(a, b)),
    Case("minimum", "strided", ops.minimum, (strided(*A), normal(4)), lambda t, a, b: t.minimum(a, b)),
    Case("where", "broadcast", lambda a, b: ops.where(MASK, a, b), (normal(4), normal(3, 1)),
         lambda t, a, b: t.where(t.from_numpy(MASK), a, b)),
    Case("clip", "both", lambda x: ops.clip(x, -0.5, 0.7), (normal(4, 5),), lambda t, x: t.clamp(x, -0.5, 0.7)),
    Case("clip", "low", lambda x: x.clip(min=0.1), (strided(4, 5),), lambda t, x: t.clamp(x, min=0.1)),
    Case("astype", "same", lambda x: x.astype(x.dtype), (normal(3),), lambda t, x: x.clone()),
    Case("add_relu", "", ops.add_relu, (normal(3, 4), strided(3, 4)), lambda t, a, b: t.relu(a + b)),
    Case("add_relu", "4-D", ops.add_relu, (chwn(3, 2, 2, 4), normal(3, 2, 2, 4)), lambda t, a, b: t.relu(a + b)),
    Case("gelu", "exact", ops.gelu, (strided(3, 4, 2),), lambda t, x: t.nn.functional.gelu(x)),
    Case("gelu", "tanh", lambda x: ops.gelu(x, approximate="tanh"), (normal(3, 4),),
         lambda t, x: t.nn.functional.gelu(x, approximate="tanh")),
    Case("dropout", "", lambda x: ops.dropout(x, 0.3, np.random.default_rng(5)), (strided(4, 5),),
         lambda t, x: x * t.from_numpy(keep_mask((4, 5), 0.3)) / 0.7),
]
CASES += [Case(op, what, lambda x, op=op, kw=kw: getattr(ops, op)(x, **kw), (make,), lambda t, x, op=op, tkw=tkw: (
    getattr(t, op)(x, **tkw))) for op in ("sum", "mean", "var", "std") for what, kw, tkw, make in [
        ("all", {}, {}, normal(3, 4)),
        ("axis", {"axis": 1}, {"dim": 1}, strided(3, 4, 2)),
        ("axes, keepdims", {"axis": (0, -1), "keepdims": True}, {"dim": (0, -1), "keepdim": True}, chwn(3, 2, 2, 4)),
        ("size-1 axes", {"axis": (0, 2)}, {"dim": (0, 2)}, normal(4, 1, 2))]]
CASES += [Case("max", "one axis", lambda x: x.max(1), (strided(3, 4),), lambda t, x: t.max(x, 1).values),
          Case("max", "keepdims", lambda x: x.max(-1, keepdims=True), (normal(3, 4),),
               lambda t, x: t.max(x, -1, keepdim=True).values),
          Case("max", "all", ops.max, (normal(3, 4),), lambda t, x: t.max(x)),
          Case("max", "axes", lambda x: x.max((0, 2)), (normal(3, 2, 4),), lambda t, x: t.amax(x, (0, 2))),
          Case("min", "one axis", lambda x: x.min(0), (normal(3, 4),), lambda t, x: t.min(x, 0).values),
          Case("min", "all", ops.min, (strided(3, 4),), lambda t, x: t.min(x)),
          Case("var", "correction 0", lambda x: x.var(0, correction=0), (normal(3, 4),),
               lambda t, x: t.var(x, 0, correction=0))]
CASES += [Case("matmul", f"{a} @ {b}", lambda x, y: x @ y, (make(*a), make(*b))) for make in (normal, strided)
          for a, b in [((3,), (3,)), ((3,), (3, 2)), ((4, 3), (3,)), ((4, 3), (3, 2)), ((2, 4, 3), (3, 5)),
                       ((2, 1, 4, 3), (5, 3, 2)), ((3,), (2, 3, 4)), ((2, 4, 3), (3,)), ((1, 1), (1, 1))]
          if make is normal or len(a) + len(b) > 3]
CASES += [
    Case("linear", "bias", ops.linear, (strided(5, 3), normal(2, 3), normal(2)),
         lambda t, *a: t.nn.functional.linear(*a)),
    Case("linear", "3-D, no bias", ops.linear, (normal(2, 4, 3), strided(5, 3)),
         lambda t, *a: t.nn.functional.linear(*a)),
    Case("reshape", "", lambda x: x.reshape(2, -1), (strided(3, 4),)),
    Case("flatten", "", lambda x: ops.flatten(x, 1), (chwn(3, 2, 2, 2),), lambda t, x: t.flatten(x, 1)),
    Case("permute", "", lambda x: x.permute(2, 0, 1), (normal(2, 3, 4),)),
    Case("transpose", "", lambda x: x.transpose(0, -1), (strided(2, 3, 4),)),
    Case("transpose", "T", lambda x: x.T @ x, (normal(3, 4),)),
    Case("squeeze", "all", lambda x: x.squeeze(), (normal(1, 3, 1),)),
    Case("squeeze", "axis", lambda x: x.squeeze(0), (normal(1, 3, 1),)),
    Case("unsqueeze", "", lambda x: x.unsqueeze(-1), (normal(2, 3),)),
    Case("broadcast_to", "", lambda x: x.broadcast_to((4, 2, 3)), (normal(2, 1),)),
    Case("concat", "", lambda *a: ops.concat(a, axis=1), (normal(2, 3), strided(2, 1), normal(2, 2)),
         lambda t, *a: t.cat(a, dim=1)),
    Case("concat", "same tensor twice", lambda x: ops.concat([x, x * 2, x]), (normal(2, 3),),
         lambda t, x: t.cat([x, x * 2, x])),
    Case("stack", "", lambda *a: ops.stack(a, axis=-1), (normal(2, 3), strided(2, 3)),
         lambda t, *a: t.stack(a, dim=-1)),
    Case("split", "int", lambda x: x.split(2, 1)[0] * x.split(2, 1)[1].sum(), (normal(3, 5),)),
    Case("split", "lengths", lambda x: ops.split(x, [1, 4], axis=1)[1], (strided(3, 5),),
         lambda t, x: t.split(x, [1, 4], dim=1)[1]),
    Case("pad", "constant", lambda x: ops.pad(x, (1, 2, 0, 1), 0.5), (chwn(2, 3, 2, 2),),
         lambda t, x: t.nn.functional.pad(x, (1, 2, 0, 1), value=0.5)),
    Case("pad", "cut", lambda x: ops.pad(x, (-1, 2, 1, -2)), (normal(4, 3),),
         lambda t, x: t.nn.functional.pad(x, (-1, 2, 1, -2))),
    Case("getitem", "integer", lambda x: x[1], (normal(3, 4),)),
    Case("getitem", "slices", lambda x: x[:, 1:4:2], (strided(3, 5),)),
    Case("getitem", "ellipsis, None", lambda x: x[..., None, 0], (normal(2, 3, 4),)),
    Case("getitem", "element", lambda x: x[1, 2], (normal(3, 4),)),
    Case("getitem", "downsample", lambda x: x[:, :, ::2, ::2], (chwn(2, 2, 4, 4),)),
    Case("getitem", "repeated rows", lambda x: x[ROWS], (normal(3, 2),)),
    Case("getitem", "two arrays, repeated", lambda x: x[[0, 1, 0], [2, 2, 2]], (normal(3, 4),)),
    Case("getitem", "array and slice", lambda x: x[:, [0, 0, 2]], (strided(3, 4),)),
    Case("getitem", "2-D index", lambda x: x[[[0, 1], [1, 1]]], (normal(3, 2),),
         lambda t, x: x[t.tensor([[0, 1], [1, 1]])]),
    Case("getitem", "mask", lambda x: x[MASK], (strided(3, 4),)),
    Case("getitem", "mask of rows", lambda x: x[MASK[:, 0], 1:], (normal(3, 4),)),
    Case("embedding", "", ops.embedding, (integers(5, 2, 3), normal(5, 4)),
         lambda t, i, w: t.nn.functional.embedding(i, w)),
    Case("embedding", "padding", lambda i, w: ops.embedding(i, w, padding_idx=1), (integers(3, 4), normal(3, 4)),
         lambda t, i, w: t.nn.functional.embedding(i, w, padding_idx=1), numerical=False),
    Case("softmax", "", lambda x: ops.softmax(x, axis=1), (strided(2, 5, 3),), lambda t, x: t.softmax(x, 1)),
    Case("log_softmax", "", ops.log_softmax, (normal(4, 5),), lambda t, x: t.log_softmax(x, -1)),
    Case("logsumexp", "", lambda x: ops.logsumexp(x, 1), (normal(4, 5),), lambda t, x: t.logsumexp(x, 1)),
    Case("logsumexp", "all", ops.logsumexp, (strided(4, 5),), lambda t, x: t.logsumexp(x, (0, 1))),
]
CASES += [Case("cross_entropy", f"{shape} {kw}", lambda x, y, kw=kw: ops.cross_entropy(x, y, **kw),
               (strided(*shape), integers(4, *shape[:1], *shape[2:]) if len(shape) > 1 else np.array(2)),
               lambda t, x, y, kw=kw: t.nn.functional.cross_entropy(x, y, **kw))
          for shape in ((5, 4), (2, 4, 3), (4,))
          for kw in ({}, {"reduction": "sum", "label_smoothing": 0.1}, {"reduction": "none", "ignore_index": 1},
                     {"ignore_index": 0, "label_smoothing": 0.2})]
CASES += [Case("conv2d", f"{x} {w} {kw}", lambda x, w, b, kw=kw: ops.conv2d(x, w, b, **kw),
               (make(*x), normal(*w), normal(w[0])), lambda t, x, w, b, kw=kw: t.nn.functional.conv2d(x, w, b, **kw))
          for make, x, w, kw in [
              (normal, (2, 3, 5, 4), (4, 3, 3, 3), {}),
              (chwn, (2, 2, 5, 5), (3, 2, 3, 3), {"stride": 2, "padding": 1}),
              (strided, (2, 4, 6, 5), (4, 2, 3, 2), {"stride": (1, 2), "padding": (2, 0), "groups": 2}),
              (chwn, (1, 2, 7, 7), (2, 1, 3, 3), {"dilation": 2, "groups": 2, "padding": 1}),
              (normal, (2, 3, 4, 4), (2, 3, 1, 1), {"stride": 2})]]
CASES += [Case("conv2d", "no bias", ops.conv2d, (chwn(2, 3, 4, 4), normal(2, 3, 2, 2)),
               lambda t, x, w: t.nn.functional.conv2d(x, w))]
CASES += [Case(op, str(args), lambda x, op=op, args=args: getattr(ops, op)(x, *args), (make(2, 3, 6, 5),),
               lambda t, x, op=op, args=args: getattr(t.nn.functional, op)(x, *args))
          for make in (chwn, strided) for op, args in [
              ("max_pool2d", (2,)), ("max_pool2d", (3, 2, 1)), ("max_pool2d", ((2, 3), (1, 2))),
              ("avg_pool2d", (2,)), ("avg_pool2d", (3, 2, 1)), ("avg_pool2d", ((2, 3), (1, 2), (1, 0))),
              ("adaptive_avg_pool2d", (1,)), ("adaptive_avg_pool2d", ((3, 1),)), ("adaptive_avg_pool2d", ((4, 3),))]]
CASES += [
    Case("avg_pool2d", "pad not counted", lambda x: ops.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
         (normal(1, 2, 5, 5),), lambda t, x: t.nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    Case("batch_norm", "training", lambda x, w, b: ops.batch_norm(x, None, None, w, b, True),
         (chwn(4, 3, 2, 2), positive(3), normal(3)),
         lambda t, x, w, b: t.nn.functional.batch_norm(x, None, None, w, b, True)),
    Case("batch_norm", "relu", lambda x, w, b: ops.batch_norm(x, None, None, w, b, True, relu=True),
         (chwn(4, 3, 2, 2), normal(3), normal(3)),
         lambda t, x, w, b: t.relu(t.nn.functional.batch_norm(x, None, None, w, b, True))),
    Case("batch_norm", "eval, relu", lambda x, w, b: ops.batch_norm(x, np.zeros(3), np.full(3, 2.0), w, b, relu=True),
         (strided(4, 3, 2), normal(3), normal(3)),
         lambda t, x, w, b: t.relu(t.nn.functional.batch_norm(x, t.zeros(3), t.full((3,), 2.0), w, b))),
    Case("batch_norm", "residual", lambda x, w, r: ops.batch_norm(x, None, None, w, None, True, residual=r),
         (chwn(4, 3, 2, 2), normal(3), normal(4, 3, 2, 2)),
         lambda t, x, w, r: t.nn.functional.batch_norm(x, None, None, w, None, True) + r),
    Case("batch_norm", "residual, relu",
         lambda x, w, b, r: ops.batch_norm(x, None, None, w, b, True, relu=True, residual=r),
         (chwn(4, 3, 2, 2), normal(3), normal(3), normal(4, 3, 2, 2)),
         lambda t, x, w, b, r: t.relu(t.nn.functional.batch_norm(x, None, None, w, b, True) + r)),
    Case("batch_norm", "eval, residual, relu",
         lambda x, r: ops.batch_norm(x, np.zeros(3), np.full(3, 2.0), relu=True, residual=r),
         (normal(4, 3, 2, 2), chwn(4, 3, 2, 2)),
         lambda t, x, r: t.relu(t.nn.functional.batch_norm(x, t.zeros(3), t.full((3,), 2.0)) + r)),
    Case("batch_norm", "2-D, no affine", lambda x: ops.batch_norm(x, None, None, training=True), (strided(5, 3),),
         lambda t, x: t.nn.functional.batch_norm(x, None, None, training=True)),
    Case("batch_norm", "3-D", lambda x, w: ops.batch_norm(x, None, None, w, training=True),
         (normal(2, 3, 4), positive(3)),
         lambda t, x, w: t.nn.functional.batch_norm(x, None, None, w, training=True)),
    Case("batch_norm", "eval", lambda x, w, b: ops.batch_norm(x, np.zeros(3), np.full(3, 2.0), w, b),
         (strided(4, 3, 2, 2), positive(3), normal(3)),
         lambda t, x, w, b: t.nn.functional.batch_norm(x, t.zeros(3), t.full((3,), 2.0), w, b)),
    Case("layer_norm", "", lambda x, w, b: ops.layer_norm(x, 5, w, b), (strided(2, 3, 5), positive(5), normal(5)),
         lambda t, x, w, b: t.nn.functional.layer_norm(x, (5,), w, b)),
    Case("layer_norm", "two axes", lambda x: ops.layer_norm(x, (3, 4)), (normal(2, 3, 4),),
         lambda t, x: t.nn.functional.layer_norm(x, (3, 4))),
]


def test_every_op_has_a_row():
    assert {case.op for case in CASES} == set(ops.__all__)


@pytest.mark.parametrize("case", [c for c in CASES if c.numerical], ids=lambda c: f"{c.op}-{c.what}")
def test_every_op_gradcheck(case):
    assert gradcheck(case.ours, case.arrays())


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}-{c.what}")
def test_every_op_agrees_with_torch(case, torch):
    arrays = [a.astype(np.float32) if a.dtype == np.float64 else a for a in case.arrays()]  # astype keeps the order
    ours = [Tensor(a, requires_grad=True) if a.dtype == np.float32 else a for a in arrays]
    theirs = [torch.from_numpy(a.copy()) for a in arrays]
    for t in theirs:
        t.requires_grad_(t.is_floating_point())
    y = case.ours(*ours)
    expected = case.torch(torch, *theirs) if case.torch else case.ours(*theirs)
    assert y.dtype == np.float32 and y.shape == tuple(expected.shape)
    np.testing.assert_allclose(y.data, expected.detach().numpy(), rtol=2e-5, atol=2e-6)
    direction = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    y.backward(direction)
    expected.backward(torch.from_numpy(np.asarray(direction)))
    for mine, other in zip(ours, theirs, strict=True):
        if isinstance(mine, Tensor):
            assert mine.grad.dtype == np.float32 and mine.grad.shape == mine.shape
            np.testing.assert_allclose(mine.grad, other.grad.numpy(), rtol=1e-4, atol=1e-5)
