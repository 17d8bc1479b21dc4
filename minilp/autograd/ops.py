"""Every operation under one roof: `from minilp.autograd import ops`, then `ops.exp(x)`, `ops.concat([a, b])` ..."""

from minilp.autograd.activations import add_relu, gelu, relu
from minilp.autograd.conv import conv2d
from minilp.autograd.dropout import dropout
from minilp.autograd.elementwise import add, div, maximum, minimum, mul, neg, pow, sub, where
from minilp.autograd.indexing import embedding, getitem
from minilp.autograd.linalg import linear, matmul
from minilp.autograd.norm import batch_norm, layer_norm
from minilp.autograd.pool import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from minilp.autograd.reductions import max, mean, min, std, sum, var
from minilp.autograd.shape import (
    broadcast_to,
    concat,
    flatten,
    pad,
    permute,
    reshape,
    split,
    squeeze,
    stack,
    transpose,
    unsqueeze,
)
from minilp.autograd.softmax import cross_entropy, log_softmax, logsumexp, softmax
from minilp.autograd.unary import abs, astype, clip, exp, log, sigmoid, sqrt, tanh

__all__ = [
    "abs", "adaptive_avg_pool2d", "add", "add_relu", "astype", "avg_pool2d", "batch_norm", "broadcast_to", "clip",
    "concat", "conv2d", "cross_entropy", "div", "dropout", "embedding", "exp", "flatten", "gelu", "getitem",
    "layer_norm", "linear", "log", "log_softmax", "logsumexp", "matmul", "max", "max_pool2d", "maximum", "mean",
    "min", "minimum", "mul", "neg", "pad", "permute", "pow", "relu", "reshape", "sigmoid", "softmax", "split",
    "sqrt", "squeeze", "stack", "std", "sub", "sum", "tanh", "transpose", "unsqueeze", "var", "where",
]
