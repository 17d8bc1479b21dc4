# %% [markdown]
# # Lesson 00: autograd from scratch
#
# Afterwards you can **build** an engine of about a hundred lines that finds the gradient of any program made of array
# operations; **check** it against numerical gradients; **recognise** each of its parts in `minilp.autograd`; and
# **train** a small net with it.
#
# *You need:* Python, a little NumPy, derivatives and the chain rule. *Time:* 75 to 90 minutes to read and solve; the
# machine takes about half a minute. *Code it walks through:* `minilp/autograd/engine.py`, `function.py`, `arrays.py`,
# `elementwise.py`, `gradcheck.py`.

# %%
import functools
import inspect
import itertools

import numpy as np

import minilp
from minilp import figures, nn, optim, recipe
from minilp import lessons as lab
from minilp.autograd import Function, GradcheckError, Tensor, arrays, elementwise, engine, gradcheck, ops

STEPS = 200 if lab.fast() else 400  # of each training
rng = np.random.default_rng(0)
print(f"minilp {minilp.__version__}, numpy {np.__version__}, {STEPS} steps a training")

# %% [markdown]
# ## Symbols
#
# | symbol | meaning | in code | shape |
# |---|---|---|---|
# | $L$ | the *loss*: the one number that training makes small | `loss` | none, a number |
# | $\bar v = \partial L / \partial v$ | the *gradient* of $v$: how much $L$ grows when $v$ grows by a little, divided by that little | `v.grad` | that of $v$ |
# | $\partial y / \partial x$ | *local derivative*: of an operation's result by one of its inputs | `derivative` of `Scalar`; later inside `backward` | a number |
# | $h$ | step of a numerical derivative | `eps` | a number |
# | $x W + b$ | a linear layer: batch $x$, weight $W$, bias $b$ | `x @ w + b` | $(N, I)$, $(I, O)$, $(O)$ |
# | $p$ | probabilities of the classes, by softmax | `p` | $(N, C)$ |
#
# The *graph* of a computation has a *node* for every value; a node's *parents* are the values it was computed from.
# A *leaf* has no parents: an input or a parameter.

# %% [markdown]
# ## One number by hand
#
# Take $L = (ab + a)^2$ at $a = 2$, $b = -3$. Forwards, one operation at a time:
#
# $$ u = ab = -6, \qquad s = u + a = -4, \qquad L = s \cdot s = 16. $$
#
# Backwards, from $L$ to the leaves. Each line is one local derivative times the gradient of the line before:
#
# * $\bar s = 2s = -8$, because $s$ is used twice in $s \cdot s$, and each use contributes $s$.
# * $\bar u = \bar s \cdot 1 = -8$, and the addition gives $a$ the same: $-8$.
# * $\bar b = \bar u \cdot a = -16$. The multiplication gives $a$ its part too: $\bar u \cdot b = 24$.
# * $a$ was used twice, so its parts add up: $\bar a = -8 + 24 = 16$.
#
# That is the whole method: **walk backwards, multiply by local derivatives, add where a value was used more than
# once.** A check with a small step, and minilp's answer:

# %%
def loss_of(a, b):
    """The example, for numbers and for minilp's tensors alike."""
    s = a * b + a
    return s * s


by_a, by_b = loss_of(2.001, -3) - loss_of(1.999, -3), loss_of(2, -2.999) - loss_of(2, -3.001)
print(f"numerical: {by_a / 0.002:.6f} {by_b / 0.002:.6f}")
a, b = Tensor(2.0, requires_grad=True), Tensor(-3.0, requires_grad=True)
loss_of(a, b).backward()
print("minilp:   ", a.grad, b.grad)
assert (a.grad, b.grad) == (16, -16)

# %% [markdown]
# ## Numerical gradients
#
# Before there is anything to check, build the ruler. The *central difference* needs no calculus:
#
# $$ \frac{\partial f}{\partial x_i} \approx \frac{f(x + h e_i) - f(x - h e_i)}{2h} $$
#
# where $e_i$ is 1 at element $i$ and 0 elsewhere.
#
# > **Exercise 1** (★, 6 lines). Write `numerical_gradient` for a function `f` from an array to a number. It returns
# > an array of `x`'s shape and does not change `x`.
# >
# > - *Hint 1:* `for index in np.ndindex(x.shape)` visits every element of an array of any shape.
# > - *Hint 2:* make a new array of zeros (`np.zeros_like(x)`) for each element, and set one entry of it to `eps`.


# %% exercise=1 lines=6
def numerical_gradient(f, x: np.ndarray, eps: float) -> np.ndarray:
    """Central differences of f at x, one for each element."""
    ### BEGIN SOLUTION
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = eps
        grad[index] = (f(x + step) - f(x - step)) / (2 * eps)
    return grad
    ### END SOLUTION


# %%
def sum_of_squares(x):
    """Its central difference is exact: 2x."""
    return np.sum(x * x)


def sum_of_cubes(x):
    """Its central difference is 3x^2 + eps^2, so it shows which difference was taken."""
    return np.sum(x * x * x)


grid = np.arange(6.0).reshape(2, 3)
lab.check(1, numerical_gradient, [
    ((sum_of_squares, grid, 0.25), 2 * grid), ((sum_of_cubes, grid, 0.25), 3 * grid**2 + 0.0625),
    ((sum_of_cubes, np.array([-1.5, 2.0]), 0.5), np.array([7.0, 12.25])),
    ((sum_of_squares, np.array(3.0), 0.125), np.array(6.0))])

# %% [markdown]
# How small should the step be? Take the derivative of $\tanh$ at fifty points, in float64, with $h = 2^{-k}$.
# **Which $k$ gives the smallest error?** Write it down, as in `my_guess = 10`.

# %%
my_guess = None

# %%
points, exponents = rng.uniform(0.5, 2, 50), np.arange(1, 50)
exact = 1 - np.tanh(points) ** 2


def error_of(difference: str, dtype, k: int) -> float:
    """Root mean square error, relative to the derivative, of a difference with the step 2^-k."""
    x, h = points.astype(dtype), dtype(2.0**-k)
    left, width = (x, h) if difference == "forward" else (x - h, 2 * h)
    return float(np.sqrt(np.mean((((np.tanh(x + h) - np.tanh(left)) / width) / exact - 1) ** 2)))


kinds = {"forward, float64": ("forward", np.float64), "central, float32": ("central", np.float32),
         "central, float64": ("central", np.float64)}
errors = {label: np.array([error_of(*kind, k) for k in exponents]) for label, kind in kinds.items()}
lab.guess(my_guess, int(exponents[errors["central, float64"].argmin()]))
for label, error in errors.items():
    print(f"{label}: smallest error {error.min():.1e} at h = 2^-{exponents[error.argmin()]}")
lab.lines({label: ("fp32", 2.0**-exponents, error) for label, error in errors.items()}, "step h",
          "error, relative to the derivative",
          "Large steps err by curvature, small ones by rounding; float32 has no good step.",
          logx=True, logy=True)

# %% [markdown]
# On the right, half the step makes a quarter of the central difference's error, and half of the forward one's: what is
# left is the function's curvature. On the left, half the step doubles the error: two nearly equal numbers are
# subtracted, and their rounding remains. So a gradient check needs the central difference and float64;
# `minilp.autograd.gradcheck` refuses float32.
#
# This is a ruler and not an engine: it evaluates $f$ twice *for each element*. Walking backwards costs about as much as
# a few evaluations, however many elements there are, and so networks with millions of parameters can be trained.
#
# ## The simple version: numbers, path by path
#
# A number that remembers its parents, with the local derivative by each of them, and hands its gradient on:

# %%
class Scalar:
    """A number, and (parent, local derivative) for each number that it was computed from."""

    calls = 0  # of push, for all numbers together

    def __init__(self, value: float, parents: tuple = ()) -> None:
        self.value, self.parents, self.grad = value, parents, 0.0

    def __add__(self, other):
        return Scalar(self.value + other.value, ((self, 1.0), (other, 1.0)))

    def __mul__(self, other):
        return Scalar(self.value * other.value, ((self, other.value), (other, self.value)))

    def push(self, grad: float) -> None:
        """Add a gradient that arrives here, and pass its share on to every parent."""
        Scalar.calls += 1
        self.grad += grad
        for parent, derivative in self.parents:
            parent.push(grad * derivative)


a, b = Scalar(2.0), Scalar(-3.0)
loss_of(a, b).push(1.0)
print(a.grad, b.grad)
assert (a.grad, b.grad) == (16, -16)

# %% [markdown]
# Correct, in a dozen lines. Now double a number 18 times, $y \leftarrow y + y$. The graph has 19 nodes. **How often is
# `push` called?**

# %%
my_guess = None

# %%
x = y = Scalar(1.0)
for _ in range(18):
    y = y + y
Scalar.calls = 0
y.push(1.0)
print(f"gradient {x.grad:.0f}, which is 2^18 = {2**18}")
lab.guess(my_guess, Scalar.calls)
assert Scalar.calls == 2**19 - 1

# %% [markdown]
# `push` follows every *path* from the result to the leaf, and there are $2^{18}$ of them. Each node should wait until
# all gradients that flow to it have arrived, and pass on their sum, once. That needs an order in which every node comes
# after all nodes that used it: a *topological order*.
#
# There is a cheap one. A result is always made after its inputs. So number the nodes as they are made: **newest first**
# is a topological order.
#
# > **Exercise 2** (★★, 8 lines). Write `topological_order`: all nodes that `root` was computed from, `root` included,
# > each once, the largest `number` first. No recursion: a chain of 5000 nodes must work too.
# >
# > - *Hint 1:* first collect, then sort. Keep a set of what was seen, and a list of what is still to be looked at.
# > - *Hint 2:* take a node off the list (`pop`); each of its `parents` that was not seen goes into both.
# > - *Hint 3:* `sorted(seen, key=lambda node: -node.number)`.


# %% exercise=2 lines=8
def topological_order(root) -> list:
    """The graph below root: every node after all nodes that it is a parent of."""
    ### BEGIN SOLUTION
    seen, waiting = {root}, [root]
    while waiting:
        for parent in waiting.pop().parents:
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return sorted(seen, key=lambda node: -node.number)
    ### END SOLUTION


# %%
class Numbered:
    """A node without a value."""

    def __init__(self, number: int, *parents) -> None:
        self.number, self.parents = number, parents


def order_of(parents_of: dict) -> np.ndarray:
    """Numbers in topological order of a graph {number: numbers of the parents}, from its last node."""
    nodes: dict = {}
    for number, parents in parents_of.items():
        nodes[number] = Numbered(number, *(nodes[p] for p in parents))
    return np.array([node.number for node in topological_order(nodes[max(nodes)])])


lab.check(2, order_of, [
    (({0: (), 1: (), 2: (0, 1)},), np.array([2, 1, 0])),
    (({0: (), 1: (0, 0), 2: (1, 1)},), np.array([2, 1, 0])),  # doubled twice
    (({0: (), 1: (0,), 2: (0,), 3: (2,), 4: (1, 3), 5: (0, 4)},), np.array([5, 4, 3, 2, 1, 0])),
    (({0: (), 1: (), 2: (0,), 3: (1,), 4: (0, 3)},), np.array([4, 3, 1, 0])),  # 2 leads nowhere
    (({0: (), **{n: (n - 1,) for n in range(1, 5000)}},), np.arange(4999, -1, -1))])

# %% [markdown]
# ## The real one: arrays, node by node
#
# A network multiplies matrices, so a node holds an array. Two things are new.
#
# First, an operation is a small class with two functions on plain arrays. `forward` computes, and keeps in `self` what
# `backward` will need. `backward` gets the gradient of the result and returns one gradient for each input.

# %%
class Op:
    """One use of an operation."""

    @classmethod
    def apply(cls, *inputs, **options):
        """Run forward on the inputs' arrays; the result remembers the operation and its inputs."""
        op = cls()
        op.__dict__.update(options)  # such as the targets of a loss
        parents = tuple(x if isinstance(x, Node) else Node(x) for x in inputs)
        return Node(op.forward(*(parent.data for parent in parents)), op, parents)


class Add(Op):
    def forward(self, a, b):
        return a + b

    def backward(self, grad):
        return grad, grad


class Mul(Op):
    def forward(self, a, b):
        self.a, self.b = a, b
        return a * b

    def backward(self, grad):
        return grad * self.b, grad * self.a


class ReLU(Op):
    def forward(self, x):
        self.positive = x > 0
        return np.maximum(x, 0)

    def backward(self, grad):
        return (grad * self.positive,)


class Sum(Op):
    def forward(self, x):
        self.shape = x.shape
        return x.sum()

    def backward(self, grad):
        return (np.broadcast_to(grad, self.shape),)


# %% [markdown]
# Second, NumPy *broadcasts*: in $xW + b$ the bias of shape $(O)$ is added to all $N$ rows. It was used $N$ times, so its
# gradient is a sum of $N$ parts. `Add.backward` does not care and returns the gradient $(N, O)$; the engine sums it
# down to the shape that the input has.
#
# > **Exercise 3** (★★, 4 lines). Write `unbroadcast`: the sum of `grad` over all axes along which an array of `shape`
# > was repeated. The result has exactly that shape.
# >
# > - *Hint 1:* NumPy aligns shapes at their *last* axis. Missing axes are at the front: there are
# > `grad.ndim - len(shape)` of them. Sum them away first.
# > - *Hint 2:* then sum the axes whose length in `shape` is 1, with `keepdims=True`.
# > - *Hint 3:* `axis` may be a tuple; with the empty tuple, `sum` sums nothing.


# %% exercise=3 lines=4
def unbroadcast(grad: np.ndarray, shape: tuple) -> np.ndarray:
    """A gradient summed down to the shape of the input that was repeated."""
    ### BEGIN SOLUTION
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    repeated = tuple(axis for axis, length in enumerate(shape) if length == 1)
    return grad.sum(axis=repeated, keepdims=True)
    ### END SOLUTION


# %%
cube = np.arange(24.0).reshape(2, 3, 4)
lab.check(3, unbroadcast, [((cube, shape), arrays.unbroadcast(cube, shape)) for shape in (
    (2, 3, 4), (4,), (3, 4), (3, 1), (1, 4), (2, 1, 4), (1, 1, 1), (1,), ())])

# %% [markdown]
# Now the matrix product $Y = AB$. With $Y_{ik} = \sum_j A_{ij} B_{jk}$, the entry $A_{ij}$ was used in every $Y_{ik}$ of
# its row, each time with the local derivative $B_{jk}$. So $\bar A_{ij} = \sum_k \bar Y_{ik} B_{jk}$.
#
# > **Exercise 4** (★★, 1 line). Write `matmul_backward`: the gradients of `a` and `b`, as a tuple.
# >
# > - *Hint 1:* the sum above is itself a matrix product, of $\bar Y$ with $B$ transposed.
# > - *Hint 2:* for $\bar B$, shapes leave only one way to multiply $A$ transposed, $(J, I)$, and $\bar Y$, $(I, K)$.


# %% exercise=4 lines=1
def matmul_backward(grad: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple:
    """Gradients of a and b, from that of a @ b."""
    ### BEGIN SOLUTION
    return grad @ b.T, a.T @ grad
    ### END SOLUTION


# %%
square = np.array([[1.0, 2.0], [3.0, 4.0]])
lab.check(4, matmul_backward, [
    ((np.array([[1.0]]), np.array([[2.0]]), np.array([[3.0]])), (np.array([[3.0]]), np.array([[2.0]]))),
    ((np.array([[1.0, 0, 2]]), np.array([[1.0, 2]]), np.arange(6.0).reshape(2, 3)),
     (np.array([[4.0, 13]]), np.array([[1.0, 0, 2], [2, 0, 4]]))),
    ((square, 10 * square, square + 1),
     (np.array([[8.0, 14], [18, 32]]), np.array([[100.0, 140], [140, 200]])))])

# %% [markdown]
# So each product forwards has two more behind it: the *input gradient* and the *weight gradient*, about two thirds of a
# training step's multiplications. minilp runs all three on integer codes.
#
# The last operation is the loss. Softmax makes probabilities of $C$ numbers, $p_j = e^{x_j} / \sum_i e^{x_i}$; the loss
# is $-\log p_t$ for the right class $t$, averaged over the batch. Since $-\log p_t = -x_t + \log \sum_i e^{x_i}$, its
# derivative by $x_j$ is $p_j$, less 1 at the right class: *what was predicted, less what was right*.
#
# > **Exercise 5** (★★★, 5 lines). Write `cross_entropy_backward` for logits $(N, C)$ and targets $(N)$: the gradient of
# > the logits, from the gradient `grad` (a number) of the mean loss.
# >
# > - *Hint 1:* subtract each row's maximum before `np.exp`. The probabilities stay, and nothing overflows.
# > - *Hint 2:* `p[np.arange(len(p)), target]` are the entries at the right classes; it can be assigned to.
# > - *Hint 3:* the mean divides by $N$, and so does its gradient.


# %% exercise=5 lines=5
def cross_entropy_backward(grad: np.ndarray, logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Gradient of the logits, from that of the mean cross entropy."""
    ### BEGIN SOLUTION
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(p)), target] -= 1
    return grad * p / len(p)
    ### END SOLUTION


# %%
def ten_digits(function):
    """The function with its result rounded, so that any correct order of operations gives the same."""
    return functools.wraps(function)(lambda *args: np.round(function(*args), 10))


def by_minilp(grad, logits, target) -> np.ndarray:
    """The same gradient from minilp."""
    x = Tensor(logits, requires_grad=True)
    (ops.cross_entropy(x, target) * float(grad)).backward()
    return np.round(x.grad, 10)


batches = [(1.0, np.zeros((2, 4)), np.array([0, 3])),
           (2.0, np.array([[0.0, 0, -1e4, -1e4], [1e4, 0, 0, 0]]), np.array([1, 1])),
           (1.0, rng.normal(size=(5, 3)), np.array([0, 1, 2, 2, 0]))]
lab.check(5, ten_digits(cross_entropy_backward), [(batch, by_minilp(*batch)) for batch in batches])

# %% [markdown]
# Your functions are the engine's core. Around them: two operations, the node, and the walk.

# %%
class MatMul(Op):
    def forward(self, a, b):
        self.a, self.b = a, b
        return a @ b

    def backward(self, grad):
        return matmul_backward(grad, self.a, self.b)


class CrossEntropy(Op):  # apply it with target=...
    def forward(self, logits):
        self.logits = logits
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return -log_p[np.arange(len(logits)), self.target].mean()

    def backward(self, grad):
        return (cross_entropy_backward(grad, self.logits, self.target),)


class Node:
    """An array (float64), its gradient if it is a leaf, the operation that made it, and its parents."""

    made = itertools.count()

    def __init__(self, data, op=None, parents: tuple = ()) -> None:
        self.data, self.grad = np.asarray(data, np.float64), None
        self.op, self.parents, self.number = op, parents, next(Node.made)

    def __add__(self, other):
        return Add.apply(self, other)

    def __mul__(self, other):
        return Mul.apply(self, other)

    def __matmul__(self, other):
        return MatMul.apply(self, other)

    def relu(self):
        return ReLU.apply(self)

    def sum(self):
        return Sum.apply(self)

    def backward(self) -> None:
        """Add the gradient of this number to the .grad of every leaf that it was computed from."""
        pending = {self: np.ones_like(self.data)}
        for node in topological_order(self):
            grad = pending.pop(node)  # complete: all nodes that used this one are done
            if node.op is None:
                node.grad = grad if node.grad is None else node.grad + grad
                continue
            for parent, part in zip(node.parents, node.op.backward(grad), strict=True):
                part = unbroadcast(part, parent.data.shape)
                pending[parent] = pending[parent] + part if parent in pending else part


a, b = Node(2.0), Node(-3.0)
loss_of(a, b).backward()
print(a.grad, b.grad)
assert (a.grad, b.grad) == (16, -16)

# %% [markdown]
# Is it right? Three answers. On integers nothing is rounded, so the simple version and the real one must agree exactly
# on any program; here on random ones. On real numbers, the same engine against the ruler. And against minilp, bit for
# bit.

# %%
def random_program(leaves: list, operations: int, seed: int):
    """A sum of random sums and products of the leaves; values are used several times."""
    draw, values, total = np.random.default_rng(seed), list(leaves), leaves[0]
    for _ in range(operations):
        first, second = (values[i] for i in draw.integers(0, len(values), 2))
        values.append(first + second if draw.random() < 0.7 else first * second)
        total = total + values[-1]
    return total


pairs = []
for seed in range(20):
    scalars, nodes = [Scalar(n) for n in (1.0, -2.0, 3.0)], [Node(n) for n in (1.0, -2.0, 3.0)]
    random_program(scalars, 8, seed).push(1.0)
    random_program(nodes, 8, seed).backward()
    pairs += [(scalar.grad, 0.0 if node.grad is None else float(node.grad))
              for scalar, node in zip(scalars, nodes, strict=True)]
assert lab.same("path by path and node by node", *zip(*pairs, strict=True))

# %%
def small_net(x, w1, b1, w2):
    """Two layers and a sum of squares; for your nodes and minilp's tensors alike."""
    out = (x @ w1 + b1).relu() @ w2
    return (out * out).sum()


inputs = [rng.normal(size=shape) for shape in ((7, 4), (4, 5), (5,), (5, 3))]
mine, theirs = [Node(x) for x in inputs], [Tensor(x, requires_grad=True) for x in inputs]
small_net(*mine).backward()
small_net(*theirs).backward()
for i, name in enumerate(("x", "w1", "b1", "w2")):
    def along(z, i=i):
        """The net as a function of its input i."""
        return float(small_net(*(Node(z if j == i else other) for j, other in enumerate(inputs))).data)
    ruler = numerical_gradient(along, inputs[i], 1e-6)
    gap = np.abs(mine[i].grad - ruler).max() / np.abs(ruler).max()
    print(f"{name}: {2 * ruler.size} evaluations, largest difference to the ruler {gap:.1e}")
    assert gap < 1e-6
    assert lab.same(f"{name}: yours and minilp's", mine[i].grad, theirs[i].grad)

# %% [markdown]
# ## The same parts in minilp
#
# | yours | minilp's | what is different |
# |---|---|---|
# | `Node` | `Tensor` | float32 too; says `requires_grad`; shape errors name the operation |
# | `Op`, one object a use | `Function` (static `forward`, `backward`) and `Context` (what one use keeps) | a node points to *contexts*, not to its parents' arrays |
# | `topological_order` | a heap in `run_backward`, by `sequence` | no set, no sort: nodes are found while walking |
# | `unbroadcast` | `arrays.unbroadcast` | the same |
# | `Node.backward` | `run_backward` | frees the graph while it walks; adds in place where nobody else sees the array |
# | `numerical_gradient` | `gradcheck` | combines all outputs with random weights; says which element is wrong |
#
# An operation. It keeps an operand only if the *other* one needs a gradient:

# %%
print(inspect.getsource(elementwise.Mul))
weight = Tensor([1.0, 2.0], requires_grad=True)
kept = (weight * 3.0).grad_fn.saved
print("kept for weight * 3:", kept)
assert kept[0] is None and kept[1] == 3

# %% [markdown]
# How an operation is recorded. `edges` is where gradients will go: to the context that made an input, or to a leaf.

# %%
print(inspect.getsource(Function.apply))

# %% [markdown]
# The walk. `queue` is a heap that gives the newest node first, and `pending` is yours.

# %%
print(inspect.getsource(engine.run_backward))
print(inspect.getsource(arrays.unbroadcast))

# %% [markdown]
# Since a node does not hold its parents' arrays, memory is what the operations keep. A ReLU of a million float32
# numbers, 4 000 000 bytes: **how many bytes does minilp keep for its backward pass?** Yours keeps an array of bool.

# %%
my_guess = None

# %%
million = Tensor(rng.standard_normal((1000, 1000)).astype(np.float32), requires_grad=True)
kept_bytes = sum(value.nbytes for value in ops.relu(million).grad_fn.saved)
yours = ReLU.apply(million.data).op.positive.nbytes
print(f"yours keeps {yours} bytes")
lab.guess(my_guess, kept_bytes, "bytes")
assert kept_bytes == 1_000_000 // 8 and yours == 1_000_000

# %% [markdown]
# A bit an element. The other operands wait as they are, in float32, or, once a layer has a number format, as codes of a
# byte each: that is what the later lessons are about.
#
# > **Exercise 6** (★★, 2 lines). An operation of your own in minilp: *SiLU*, $x \cdot \sigma(x)$ with
# > $\sigma(x) = 1 / (1 + e^{-x})$. `forward` is there; write `backward`. minilp's `gradcheck` is the judge.
# >
# > - *Hint 1:* `ctx.saved` is the tuple that `forward` saved. `backward` returns a tuple too, with one entry.
# > - *Hint 2:* $\sigma' = \sigma (1 - \sigma)$; then the product rule; then the chain rule: times `grad`.


# %% exercise=6 lines=2
class SiLU(Function):
    """x times its sigmoid."""

    @staticmethod
    def forward(ctx, x):
        sigmoid = 1 / (1 + np.exp(-x))
        ctx.save_for_backward(x, sigmoid)
        return x * sigmoid

    @staticmethod
    def backward(ctx, grad):
        ### BEGIN SOLUTION
        x, sigmoid = ctx.saved
        return (grad * (sigmoid + x * sigmoid * (1 - sigmoid)),)
        ### END SOLUTION


# %%
def silu_passes_gradcheck(x) -> bool:
    """Whether every derivative agrees with the central difference; an error says which one does not."""
    return gradcheck(SiLU.apply, [x])


lab.check(6, silu_passes_gradcheck, [
    ((np.array([0.5]),), True), ((np.linspace(-3, 3, 12).reshape(3, 4),), True)])

# %% [markdown]
# ## The experiment: the same net in both engines
#
# Three spirals in the plane, 300 points to learn from and 600 to test with. A net of three linear layers, 2 to 32 to 32
# to 3, starts from the same weights in your engine (float64) and in minilp (float32), and both take the same steps:
# each parameter less 0.5 times its gradient.

# %%
LR = 0.5


def spirals(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 2) and which of three spirals each lies on."""
    radius, label = rng.uniform(0, 1, count), rng.integers(0, 3, count)
    angle = 4 * radius + label * 2 * np.pi / 3 + rng.normal(0, 0.1, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), label


def first_weights() -> list:
    """Weights (in, out) and biases of the three layers, the same at every call."""
    draw, sizes = np.random.default_rng(1), [2, 32, 32, 3]
    return [array for i, o in itertools.pairwise(sizes)
            for array in (draw.normal(0, np.sqrt(2 / i), (i, o)), np.zeros(o))]


def net(x, w1, b1, w2, b2, w3, b3):
    """Logits (N, 3) of points (N, 2)."""
    return ((x @ w1 + b1).relu() @ w2 + b2).relu() @ w3 + b3


x_train, y_train = spirals(300)
x_test, y_test = spirals(600)
print(sum(p.size for p in first_weights()), "parameters")

# %% [markdown]
# Your engine (some seconds):

# %%
parameters, losses = [Node(p) for p in first_weights()], {}
losses["your engine, float64"] = history = []
for _ in range(STEPS):
    loss = CrossEntropy.apply(net(Node(x_train), *parameters), target=y_train)
    loss.backward()
    history.append(float(loss.data))
    for p in parameters:
        p.data, p.grad = p.data - LR * p.grad, None

# %% [markdown]
# minilp, with layers and an optimizer (under half a minute). The second model gets one line more: a *recipe*, here
# `potq`, under which the three products of every layer run on powers of two of five bits (lesson 02). The engine does
# not know: to it, the layer is a `Function` like any other.

# %%
def train_in_minilp(name: str | None) -> tuple[list, float]:
    """Loss of every step and accuracy on the test points, under a recipe (None: float32)."""
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    for p, start in zip(model.parameters(), first_weights(), strict=True):
        p.data = np.ascontiguousarray(start.T, np.float32)  # nn.Linear keeps weights as (out, in)
    if name is not None:
        recipe.get(name).apply(model)
    optimizer, history = optim.SGD(model.parameters(), lr=LR), []
    for step in range(STEPS):
        with minilp.rounding_context(0, step):
            loss = nn.functional.cross_entropy(model(Tensor(x_train.astype(np.float32))), y_train)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        history.append(loss.item())
    logits = model.eval()(Tensor(x_test.astype(np.float32))).data
    return history, float(np.mean(logits.argmax(axis=1) == y_test))


logits = net(Node(x_test), *parameters).data
accuracy = {"your engine, float64": float(np.mean(logits.argmax(axis=1) == y_test))}
for label, name in {"minilp, float32": None, "minilp, powers of two, 5 bits": "potq"}.items():
    losses[label], accuracy[label] = train_in_minilp(name)
for label, value in accuracy.items():
    print(f"{label:30} last loss {losses[label][-1]:.4f}, {100 * value:.1f} % of the test points right")
styles = dict(zip(losses, ("fp32", "fp32", "pot"), strict=True))
lab.lines({label: (styles[label], range(STEPS), history) for label, history in losses.items()},
          "training step", "loss (mean cross entropy)",
          "Both engines take the same path; five bits take one of their own.", logy=True, markers=False)

# %% [markdown]
# The two black curves lie on one another: the same computation, once in 64 bits and once in 32.

# %%
gap = np.abs(np.subtract(losses["your engine, float64"], losses["minilp, float32"]))[:50].max()
print(f"largest difference of the first 50 losses, float64 against float32: {gap:.1e}")
assert gap < 1e-3
assert accuracy["your engine, float64"] > 0.85 and accuracy["minilp, float32"] > 0.85
assert accuracy["minilp, powers of two, 5 bits"] > 0.6

# %% [markdown]
# What your engine has learned, asked at every point of the plane (grey: the class; marks: the test points, each spiral
# with its own):

# %%
side = np.linspace(-1.1, 1.1, 150)
plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
regions = net(Node(plane), *parameters).data.argmax(axis=1).reshape(150, 150)
figure = figures.new(4.6, 4.2)
axes = figure.subplots()
axes.contourf(side, side, regions, levels=[-0.5, 0.5, 1.5, 2.5], colors=["0.95", "0.8", "0.62"])
for label, mark in enumerate("ox^"):
    axes.plot(*x_test[y_test == label].T, mark, color="black", markersize=3, fillstyle="none")
axes.set(xlabel="first coordinate", ylabel="second coordinate", aspect="equal",
         xticks=(-1, -0.5, 0, 0.5, 1), yticks=(-1, -0.5, 0, 0.5, 1))
lab.Picture(figure, "Three regions wind round each other as the spirals do.")

# %% [markdown]
# ## Break it
#
# *Recursion in place of a list.* The shortest topological order calls itself for every parent, as deep as the graph:

# %%
def recursive_order(node, seen: list) -> list:
    """Parents first; the graph's depth is the depth of the calls."""
    if node not in seen:
        for parent in node.parents:
            recursive_order(parent, seen)
        seen.append(node)
    return seen


deep = start = Node(1.0)
for _ in range(5000):
    deep = deep + 0.0
try:
    recursive_order(deep, [])
    failed = False
except RecursionError as error:
    failed = True
    print(f"RecursionError: {error}")
deep.backward()
print("yours, 5000 nodes deep:", start.grad)
assert failed and start.grad == 1

# %% [markdown]
# *A backward that forgets a use.* Below, the gradient of $x^2$ has only one of its two parts. And a place where no
# backward is right: ReLU has a kink at 0; its derivative there is taken as 0, and the central difference gives the mean
# of both sides. `gradcheck` names the element both times.

# %%
class HalfSquare(Function):
    """x^2, as if only one of its two factors had a gradient."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return (grad * ctx.saved[0],)


def half_square(x):
    return HalfSquare.apply(x)


def sum_of_relu(x):
    return ops.relu(x).sum()


found = []
for function, x in ((half_square, np.array([3.0])), (sum_of_relu, np.array([1.0, 0.0, -1.0]))):
    try:
        gradcheck(function, [x])
    except GradcheckError as error:
        found.append(str(error))
        print(error, end="\n\n")
assert len(found) == 2 and "index (1,)" in found[1]

# %% [markdown]
# *Leave out `unbroadcast`.* The bias's gradient keeps its rows, and NumPy subtracts it without a word: after one step
# the bias is a matrix, with a row for each sample.

# %%
bias, gradient = np.zeros(32), np.ones((300, 32))
print("bias", bias.shape, "-> after a step", (bias - LR * gradient).shape)
assert (bias - LR * gradient).shape == (300, 32)

# %% [markdown]
# *Go backwards twice.* minilp frees what it no longer needs while it walks, so a second walk is an error. Asked to keep
# the graph it walks again, and leaves add up both results. Two steps without `zero_grad()` between them do the same.

# %%
x = Tensor(3.0, requires_grad=True)
square = x * x
square.backward(retain_graph=True)
square.backward()
print("after two walks:", x.grad, "(once: 6)")
try:
    square.backward()
    failed = False
except RuntimeError as error:
    failed = True
    print("RuntimeError:", error)
assert failed and x.grad == 12

# %% [markdown]
# ## Differences from the paper
#
# There is no paper here. These are the differences from two engines that you may know, micrograd (A. Karpathy's, 94
# lines, for teaching) and PyTorch. Tags: *verified*: read in the source, or run. *recalled*: from memory.
#
# | what | micrograd | PyTorch | minilp | tag |
# |---|---|---|---|---|
# | a node holds | one Python number | a tensor | a NumPy array, float32 or float64 | verified |
# | an operation keeps | all inputs and the result, in a closure | what its `Function` saves | what its `Function` saves; operands of coded layers as codes | verified |
# | order of the walk | recursive, parents first, then reversed | counts of consumers and a queue, newest first | a heap, newest first | PyTorch's recalled, others verified |
# | 5000 nodes deep | recursion error | works | works | verified |
# | who has `.grad` | every node | leaves; others after `retain_grad()` | leaves | verified |
# | a second backward | allowed, but wrong: inner gradients were not zeroed | error without `retain_graph` | error without `retain_graph` | verified |
# | second derivatives | no | `create_graph=True` | no: gradients are plain arrays | verified |
# | writing into a value | not prevented | allowed where backward does not need it, else an error | refused: build a new tensor | verified |
# | ReLU's derivative at 0 | 0 | 0 | 0 | verified |
#
# ## Summary
#
# 1. Backwards: multiply by local derivatives, add where a value was used more than once, each node once.
# 2. Newest first is a topological order, since a result is made after its inputs.
# 3. Broadcasting repeats a value, so its gradient is a sum; a product has two more products behind it.
# 4. A central difference in float64 checks any gradient, at two evaluations an element.
# 5. The engine knows arrays and graphs; number formats live inside operations, and it need not know them.
#
# ## Questions
#
# 1. *(code)* Add `exp` and `log` to your engine and check both with `numerical_gradient`. Then write softmax and cross
#    entropy with them: why does its gradient overflow where `cross_entropy_backward` does not?
# 2. *(code)* A *dual number* carries a value and its derivative by *one* input, forwards. Write it for `+` and `*`. How
#    many forward passes does the gradient of the spirals' net take?
# 3. *(thought)* `Mul` keeps its operands until backward. Which of the three layers' outputs could be thrown away and
#    computed again, and what would that cost?
# 4. *(thought)* Rounding to a number format is a staircase: its derivative is 0 almost everywhere. What would training
#    do with that gradient, and what could be used in its place?
#
# Next: lesson 01, the numbers.
