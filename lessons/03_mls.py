# %% [markdown]
# # Lesson 03: MLS
#
# Afterwards you can **build** the three levels of scaling of MLS one by one, element, group and tensor, and **see** the
# quantisation error fall with each; **do** a group convolution with integers, shifts and adds; **find** where it stops
# paying: convolutions with 1x1 kernels.
#
# *You need:* lesson 01 (small floats, rounding), what a convolution is. *Time:* 75 to 90 minutes to read and solve; the
# machine takes under 2 minutes. *Code it walks through:* `minilp/formats/mls.py`, `mls_scales.py`,
# `minilp/kernels/mls.py` with its NumPy twin `reference_mls.py`, and `minilp/energy`.
#
# The paper is Zhong et al., "Exploring the Potential of Low-bit Training of Convolutional Neural Networks" (arXiv
# 2006.02804; IEEE TCAD 2022). The abstracts of its versions and its authors' simulator were read for minilp, its body
# was not. So some of what follows is our assumption; the table near the end says which.

# %%
import inspect
import math

import numpy as np

import minilp
from minilp import data, models, operands, optim, presets
from minilp import lessons as lab
from minilp.energy import count_shapes, networks, papers
from minilp.energy.prices import load_prices
from minilp.energy.shapes import LayerShape
from minilp.formats import MLS, QTensor
from minilp.formats.spec import Spec
from minilp.kernels import reference_mls
from minilp.nn import functional as F

rng = np.random.default_rng(0)
IMAGES, EPOCHS = (1000, 6) if lab.fast() else (2000, 8)
print(f"minilp {minilp.__version__}, numpy {np.__version__}, {minilp.backend().name}; "
      f"networks see {IMAGES} images of shapes10 for {EPOCHS} epochs")

# %% [markdown]
# ## Symbols
#
# | symbol | meaning | in code | shape |
# |---|---|---|---|
# | $X$ | a tensor: activations (N, C, H, W), errors (gradients of a layer's output, of its shape), or weights (O, C, KH, KW) | `x` | four axes |
# | $S_t$ | tensor scale: the largest magnitude of all, float32 | `q.scales[0]` | one |
# | $S_g$ | group scale $(1 + m_g/2^{M_g}) \cdot 2^{-e_g}$, at most 1 | `q.scales[1]` ($e_g$), `q.scales[2]` ($m_g$) | one a group |
# | $\bar x$ | the element, a small unsigned float below 1 | `abs(q.codes)` is its level | that of $X$ |
# | $\langle E_x, M_x \rangle$ | exponent and mantissa bits of an element | `fmt.exp`, `fmt.man` | numbers |
# | $B$ | binades (octaves) with a leading one: $2^{E_x} - 1$ | `fmt.binades` | a number |
# | $k$ | the element as an integer: $\bar x = k \cdot 2^{-(M_x + B)}$ | `fmt.integers()[level]` | that of $X$ |
# | $P$ | sum of products of integers inside one group | | one a pair of groups |
#
# $X \approx \mathrm{sign} \cdot S_t \cdot S_g \cdot \bar x$. A *group* is what shares one $S_g$: with the grouping `nc`
# each pair of the first two axes has one, so each picture's channel (a map of H x W), and each kernel of KH x KW.

# %% [markdown]
# ## One number by hand
#
# Encode $0.3$ in a tensor whose largest magnitude is 1, in a group of which $0.3$ is the largest. $\langle 2, 1
# \rangle$ elements: two exponent bits, one of mantissa, and the sign: four bits.
#
# * $S_t = 1$.
# * The group's largest magnitude over $S_t$ is $0.3 = 1.2 \cdot 2^{-2}$. A group scale has one bit of mantissa: $1$ or
#   $1.5$ times a power of two. It is rounded *up*: $S_g = 1.5 \cdot 2^{-2} = 0.375$.
# * What is left for the element is $0.3 / 0.375 = 0.8$. The $\langle 2,1 \rangle$ values are $0, \frac1{16}, \frac18,
#   \frac3{16}, \frac14, \frac38, \frac12, \frac34$. The nearest is $\frac34$: as an integer, 12 sixteenths.
# * Together $1 \cdot 0.375 \cdot 0.75 = 0.28125$.
#
# Do the same for $-0.7$. The cell has both, and what happens when they are multiplied; keep that for later.

# %%
fmt = MLS(2, 1)
print(fmt.explain(0.3, -0.7))

# %% [markdown]
# ## First level: the element
#
# An element's level is exponent field $f$ and mantissa $m$ behind one another. Field 0 (the *subnormals* of lesson 01)
# has no leading one; each field above it doubles the step, except that fields 0 and 1 share theirs:
#
# $$ k = \begin{cases} m & f = 0 \\ (2^{M_x} + m) \cdot 2^{f-1} & f > 0 \end{cases}
#    \qquad \bar x = k \cdot 2^{-(M_x + B)} $$
#
# So an element *is* a small integer, times a power of two that is the same for all of them. Everything below rests on
# that.
#
# > **Exercise 1** (★, 4 lines). Write `element_integer`: $k$ of a level from 0 up.
# >
# > - *Hint 1:* `level >> man` is the field, `level & (2**man - 1)` the mantissa.
# > - *Hint 2:* multiplying by $2^{f-1}$ is `<< (f - 1)`.


# %% exercise=1 lines=4
def element_integer(level: int, man: int) -> int:
    """The integer that a level of an element stands for."""
    ### BEGIN SOLUTION
    field, mantissa = level >> man, level & (2**man - 1)
    if field == 0:
        return mantissa
    return (2**man + mantissa) << (field - 1)
    ### END SOLUTION


# %%
KINDS = (MLS(2, 1), MLS(0, 3), MLS(1, 2), MLS(3, 0), MLS(2, 4))
lab.check(1, element_integer, [((level, kind.man), int(k)) for kind in KINDS
                               for level, k in enumerate(kind.integers())])

# %% [markdown]
# All splits of three bits, on a logarithmic axis. $\langle 0,3 \rangle$ is plain fixed point, $\langle 3,0 \rangle$ are
# powers of two; $\langle 1,2 \rangle$ is fixed point again, as its two fields share their step:

# %%
rows = {f"<{kind.exp},{kind.man}>": ("mls", kind.integers() / 2**kind.fraction_bits)
        for kind in KINDS[:4]}
lab.number_lines(rows, "value of an element, logarithmic axis",
                 "Exponent bits widen the range of an element, mantissa bits make it finer.", log=True)

# %% [markdown]
# > **Exercise 2** (★★, 5 lines). Write `element_level`: the level whose value is nearest to `a`, from 0 to 1; halfway
# > between two levels the even one; what is above the largest level becomes the largest.
# >
# > - *Hint 1:* compare `a` with `element_integer(level, man) / 2**(man + binades)` for all $2^{E_x + M_x}$ levels;
# >   `binades` is $2^{E_x} - 1$.
# > - *Hint 2:* `min(levels, key=...)` takes tuples as keys: the distance first, then `level % 2`.


# %% exercise=2 lines=5
def element_level(a: float, exp: int, man: int) -> int:
    """The level nearest to a, which is not negative."""
    ### BEGIN SOLUTION
    unit = 2.0 ** -(man + 2**exp - 1)
    def distance(level: int) -> tuple[float, int]:
        return abs(a - element_integer(level, man) * unit), level % 2
    return min(range(2 ** (exp + man)), key=distance)
    ### END SOLUTION


# %%
def element_cases(kind: MLS) -> list:
    """Numbers from 0 to 1, borders among them, and what minilp makes of them under scales of 1."""
    values = kind.integers() / 2**kind.fraction_bits
    borders = (values[1:] + values[:-1]) / 2
    a = np.concatenate([values, borders, rng.uniform(0, 1, 10), [1.0]]).astype(np.float32)
    ones = (np.ones(1, np.float32), np.zeros(1, np.int16), np.zeros(1, np.int8))
    return [((float(v), kind.exp, kind.man), int(code))
            for v, code in zip(a, kind.encode(a, scales=ones).codes, strict=True)]


lab.check(2, element_level, [case for kind in KINDS[:3] for case in element_cases(kind)])

# %% [markdown]
# ## Second level: the group
#
# The largest magnitude of a group, divided by $S_t$, is a number $q$ from 0 to 1. Its scale is the next number *at or
# above* $q$ of the form $(2 + m)/2 \cdot 2^{-e}$ with $m$ 0 or 1. At or above, so that no element exceeds 1.
#
# > **Exercise 3** (★★, 6 lines). Write `group_scale`: $e$ and $m$ for one $q$ from just above 0 to 1.
# >
# > - *Hint 1:* `math.frexp(q)` gives `f, p` with $q = f \cdot 2^p$, $0.5 \le f < 1$. In halves: $f = 0.5$ fits
# >   $m = 0$, up to $0.75$ fits $m = 1$, and above that comes the next power of two.
# > - *Hint 2:* $0.5 \cdot 2^p = 1 \cdot 2^{-e}$ gives $e = 1 - p$.


# %% exercise=3 lines=6
def group_scale(q: float) -> tuple[int, int]:
    """Exponent e and mantissa m of the smallest (1 + m/2) 2^-e that is not below q."""
    ### BEGIN SOLUTION
    fraction, power = math.frexp(q)
    if fraction == 0.5:
        return 1 - power, 0
    if fraction <= 0.75:
        return 1 - power, 1
    return -power, 0
    ### END SOLUTION


# %%
def scale_cases() -> list:
    """Powers of two, 1.5 times them, what lies just above and below, and what minilp makes of them."""
    powers = np.ldexp(np.float32(1), -np.arange(12))
    q = np.concatenate([powers * np.float32(factor) for factor in (1, 0.75, 0.7500001, 0.51, 0.99)])
    q = np.append(q, rng.uniform(0, 1, 20).astype(np.float32))
    x = np.append(q, np.float32(1)).reshape(-1, 1, 1, 1)  # a group each; the last one makes S_t 1
    _, exponent, mantissa = MLS(2, 1, least=1).encode(x).scales
    return [((float(v),), (int(e), int(m)))
            for v, e, m in zip(x.ravel(), exponent.ravel(), mantissa.ravel(), strict=True)]


lab.check(3, group_scale, scale_cases())

# %% [markdown]
# ## Third level: the tensor, and all together
#
# $S_t$ is the largest magnitude of the tensor itself, as float32. Now the whole format is your three functions, tensor
# by group by element. minilp does the same with shifts on the bits of floats, in NumPy or C:

# %%
x = np.ldexp(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), rng.integers(-6, 1, (4, 3, 1, 1)))
whole = float(np.abs(x).max())
codes, exponents, mantissas = np.zeros(x.shape, int), np.zeros((4, 3), int), np.zeros((4, 3), int)
for n, c in np.ndindex(4, 3):
    e, m = exponents[n, c], mantissas[n, c] = group_scale(float(np.abs(x[n, c]).max()) / whole)
    for place in np.ndindex(3, 3):
        value = float(x[n, c][place])
        level = element_level(abs(value) / (whole * (1 + m / 2) * 2.0**-e), 2, 1)
        codes[n, c][place] = int(math.copysign(level, value))
q = fmt.encode(x)
assert lab.same("group exponents, yours and minilp's", exponents, q.scales[1][..., 0, 0])
assert lab.same("group mantissas, yours and minilp's", mantissas, q.scales[2][..., 0, 0])
assert lab.same("codes, yours and minilp's", codes, q.codes)
with minilp.use_backend("numpy"):
    twin = fmt.encode(x)
assert lab.same(f"codes, numpy and {minilp.backend().name}", twin.codes, q.codes)

# %%
print(inspect.getsource(reference_mls.scales))

# %% [markdown]
# ## What each level buys
#
# Real tensors: a small CNN is trained with MLS for a few epochs. Then one more batch goes forward and backward, and
# every tensor that is encoded on the way is kept: weights, activations and errors of the middle convolutions. (First
# and last layer stay float32. A few seconds.)

# %%
train_set, test_set = data.shapes10.load(0, IMAGES, 1000)


def fit(recipe, seed: int = 0):
    """Train a small CNN; returned: the model, the loss of every step, test accuracy in percent."""
    minilp.manual_seed(seed)
    model = recipe.apply(models.build("small_cnn", width=8))
    loader, losses = data.Loader(train_set, 32, seed=seed), []
    stepper = optim.SGD(model.parameters(), lr=0.2, momentum=0.9, nesterov=True)
    schedule = optim.OneCycleLR(stepper, 0.2, EPOCHS * len(loader), cycle_momentum=False)
    for epoch in range(EPOCHS):
        for x, y in loader.epoch(epoch):
            with minilp.rounding_context(seed, len(losses)):
                losses.append(step(model, x, y))
                stepper.step()
            schedule.step()
    model.eval()
    with minilp.no_grad():
        hits = [model(minilp.Tensor(x)).data.argmax(1) == y
                for x, y in data.Loader(test_set, 250, shuffle=False).epoch(0)]
    model.train()
    return model, losses, 100 * float(np.concatenate(hits).mean())


def step(model, x: np.ndarray, y: np.ndarray) -> float:
    """Forward and backward; the loss."""
    model.zero_grad()
    loss = F.cross_entropy(model(minilp.Tensor(x)), y)
    loss.backward()
    return loss.item()


network, losses, percent = fit(presets.mls())
print(f"loss {np.mean(losses[:8]):.2f} at the start, {np.mean(losses[-8:]):.2f} at the end; "
      f"test {percent:.1f} %")
tensors = {}
with operands.observe(lambda layer, role, x, q: tensors.setdefault(role, []).append(x.copy())):
    step(network, *next(data.Loader(train_set, 128, seed=1).epoch(0)))
print({role: [x.shape for x in found] for role, found in tensors.items()})

# %% [markdown]
# How far do the groups lie apart? For every group, its largest magnitude relative to the tensor's:

# %%
below = np.arange(0, 13)
shares = {}
for role, found in tensors.items():
    maxima = np.concatenate([(np.abs(x).max(axis=(2, 3)) / np.abs(x).max()).ravel() for x in found])
    octave = np.floor(-np.log2(maxima[maxima > 0])).clip(0, 12)
    shares[role] = [100 * float(np.mean(octave == o)) for o in below]
lab.lines({role: ("mls", below, shares[role]) for role in shares},
          "octaves below the tensor's largest magnitude", "groups, percent",
          "Most groups of errors lie octaves below the tensor's maximum; kernels lie close to it.")

# %% [markdown]
# The measure of error is the *average relative error*, $\mathrm{ARE} = \sum |x - Q(x)| \,/\, \sum |x|$. Formats of four
# bits, one level more each time:
#
# 1. the tensor scale alone, elements in fixed point: $\langle 0, 3 \rangle$, no groups;
# 2. exponent bits in the element: $\langle 2, 1 \rangle$;
# 3. a scale for each group: MLS.
#
# **What is the ARE of the errors of the backward pass after step 1, in percent? And what will be left after step 3?**
# (Write the first number.)

# %%
my_guess = None

# %%
LEVELS = {"1. tensor scale, <0,3>": MLS(0, 3, group="none"),
          "2. and element exponent, <2,1>": MLS(2, 1, group="none"), "3. and group scale": MLS(2, 1)}
roles = ("weight", "act", "error")


def are(fmt: MLS, role: str) -> float:
    """Average relative error over the tensors of a role, rounded to nearest, in percent."""
    gone = sum(float(np.abs(x - fmt.encode(x).decode()).sum(dtype=float)) for x in tensors[role])
    return 100 * gone / sum(float(np.abs(x).sum(dtype=float)) for x in tensors[role])


def lost(fmt: MLS, role: str) -> float:
    """Percent of the numbers other than zero whose code is zero."""
    codes = np.concatenate([fmt.encode(x).codes[x != 0] for x in tensors[role]])
    return 100 * float(np.mean(codes == 0))


fallen = {role: [are(kind, role) for kind in LEVELS.values()] for role in roles}
lab.guess(my_guess, round(fallen["error"][0], 1), "%")
print(" " * 38 + "ARE, percent" + " " * 10 + "lost to zero, percent")
print(" " * 32 + "".join(f"{role:>9}" for role in (*roles, *roles)))
for number, (name, kind) in enumerate(LEVELS.items()):
    print(f"{name:32}" + "".join(f"{fallen[role][number]:9.1f}" for role in roles)
          + "".join(f"{lost(kind, role):9.1f}" for role in roles))
picture = lab.lines({role: ("mls", (1, 2, 3), fallen[role]) for role in roles}, "levels built", "ARE, percent",
                    "Each level lowers the error; wide-spread tensors gain most.")
picture.figure.axes[0].set_xticks((1, 2, 3), LEVELS)
picture

# %%
for role in ("act", "error"):
    one, two, three = fallen[role]
    assert one > 1.2 * two and two > 1.2 * three, role
assert fallen["weight"][0] > 1.2 * fallen["weight"][1]

# %% [markdown]
# Weights lose little to begin with and gain little from groups: initialised alike and normalised behind, their kernels
# have about the same size. Activations differ from picture to picture and from channel to channel by a few
# octaves, errors by many; under one scale for all of them, what is small becomes zero.
#
# Group scales have one bit of mantissa. Does it help? It brings a group's maximum closer to 1. But the largest element
# of $\langle 2,1 \rangle$ is $\frac34$, and a maximum near 1 is cut off there. If 1.0 is kept as a value of its own
# (`top="keep"`, which takes a fifth bit), the answer is another one:

# %%
for top in ("saturate", "keep"):
    for bits in (0, 1):
        found = [are(MLS(2, 1, group_man=bits, top=top), role) for role in roles]
        print(f"top={top:9} mantissa bits {bits}, ARE, percent:", "".join(f"{value:7.1f}" for value in found))

# %% [markdown]
# Do groups need the exponent in the element? All groupings (`n`: a scale for each sample or output channel, `c`: for
# each channel) under all splits of three bits:

# %%
table = {}
for role in roles:
    print(f"{role}: ARE, percent".ljust(24) + "".join(f"{group:>8}" for group in ("none", "c", "n", "nc")))
    for exp in (0, 2, 3):
        table[role, exp] = [are(MLS(exp, 3 - exp, group=group), role) for group in ("none", "c", "n", "nc")]
        print(f"  <{exp},{3 - exp}>".ljust(24) + "".join(f"{value:8.1f}" for value in table[role, exp]))
best = {role: [min((0, 2, 3), key=lambda exp: table[role, exp][column]) for column in range(4)]
        for role in roles}
print("exponent bits of the lowest ARE in each column:", *(f"{role} {found}" for role, found in best.items()))
assert best["error"][0] > best["error"][3]

# %% [markdown]
# Look for the lowest number in each column: with finer groups it moves up, to fewer exponent bits, or stays. Both
# levels provide range. What range the groups provide, the element can spend on mantissa. The paper's abstract says that
# group scaling saves exponent bits of the element (*verified*); that they go to the mantissa is our reading. But
# exponent bits in an element are cheap and serve every tensor alike, whatever its groups look like.
#
# ## Multiply inside a group: integers
#
# Now the product. Inside a pair of groups all elements share their scales. So the sum over a 3x3 window is a sum of
# products of *integers*, $P = \sum k_a k_w$.
#
# **How many bits must the accumulator have, sign included, for $\langle 2,1 \rangle$ and 3x3 kernels?** The largest
# integer is 12.

# %%
my_guess = None

# %%
for kind, terms in ((MLS(2, 1), 9), (MLS(2, 4), 9), (MLS(2, 1), 32 * 32), (MLS(2, 4), 112 * 112)):
    print(f"<{kind.exp},{kind.man}>, {terms:5} terms: products of {kind.product_bits(kind)} bits, "
          f"sums of {kind.accumulator_bits(kind, terms)} with the sign")
lab.guess(my_guess, fmt.accumulator_bits(fmt, 9), "bits")

# %% [markdown]
# Even the longest sums of a weight gradient fit 32 bits. (With FP8 elements, which reach further, they would not.)
#
# ## Between groups: shifts and adds
#
# Two group scales meet: $S_g S_g' = \frac{s_a}{2} \frac{s_w}{2} \cdot 2^{-(e_a + e_w)}$ with $s = 2 + m$, so 2 or 3.
# The product of the two significands is 4, 6 or 9; with powers of two on one side or both (where $s = 1$) also 1, 2 or
# 3. $P$ times one of these takes no multiplier.
#
# > **Exercise 4** (★★, 5 lines). Write `times`: $P \cdot s$ for $s$ in 1, 2, 3, 4, 6, 9 with at most two shifts and one
# > addition. `P` is a number that refuses to be multiplied.
# >
# > - *Hint 1:* write $s$ in binary: $6 = 110_2$, $9 = 1001_2$. Each one is a shift of $P$.
# > - *Hint 2:* `s >> bit & 1` is the digit; go through bits 0 to 3.


# %% exercise=4 lines=5
def times(p: int, s: int) -> int:
    """P * s by shifts and at most one addition."""
    ### BEGIN SOLUTION
    total = 0
    for bit in range(4):
        if s >> bit & 1:
            total = total + (p << bit)
    return total
    ### END SOLUTION


# %%
class Wires(int):
    """An integer that can be shifted and added, and nothing else."""

    def __mul__(self, other):
        raise TypeError("no multiplier here: shift and add")

    __rmul__ = __truediv__ = __floordiv__ = __pow__ = __mul__


lab.check(4, times, [((Wires(p), s), p * s) for s in (1, 2, 3, 4, 6, 9) for p in (0, 1, 5, -7, 144, -1296)])

# %% [markdown]
# A group's term is then rounded to float32 and its exponent lowered by $e_a + e_w$, which changes the exponent field
# and nothing else. Terms of different groups are added in float32: this is the *tree* of the paper's hardware
# (*recalled*). The two tensor scales are multiplied on once, at the end.
#
# > **Exercise 5** (★★★, 6 lines). Write `window`: one output of a convolution before the tensor scales. `a` and `w` are
# > integers (C, KH, KW). For each of the C groups there is a significand in `s_a` and `s_w` and an exponent in `e_a` and
# > `e_w`; the halves are in the exponents, $S_g = s \cdot 2^{-e}$. Groups come in ascending order.
# >
# > - *Hint 1:* `int(np.sum(a[c] * w[c]))` is $P$ of group $c$.
# > - *Hint 2:* `np.ldexp(np.float32(t), -e)` is $t \cdot 2^{-e}$ in float32, by the exponent field. Start the sum from
# >   `np.float32(0)`.


# %% exercise=5 lines=6
def window(a: np.ndarray, w: np.ndarray, s_a: list, s_w: list, e_a: list, e_w: list) -> np.float32:
    """Sum over groups of (integer sum times significands) at the groups' exponents."""
    ### BEGIN SOLUTION
    total = np.float32(0)
    for c in range(len(a)):
        p = int(np.sum(a[c] * w[c]))
        t = times(p, s_a[c] * s_w[c])
        total = total + np.ldexp(np.float32(t), -(e_a[c] + e_w[c]))
    return total
    ### END SOLUTION


# %%
small = np.array([[[1, 2], [0, -3]], [[12, 8], [-6, 1]]])
lab.check(5, window, [
    ((small, small, [2, 3], [2, 2], [0, 1], [0, 3]), np.float32(14 * 4 + 245 * 6 / 16)),
    ((small[:1], -small[1:], [3], [3], [2], [2]), np.float32(-25 * 9 / 16)),
    ((small * 4096, small * 4096, [2, 3], [3, 3], [0, 20], [0, 9]),
     np.float32(np.float32(14 * 2**24 * 6) + np.float32(245 * 2**24 * 9) * np.float32(2.0**-29))),
    ((small, small, [3, 3], [2, 3], [70, 0], [70, 1]), np.float32(245 * 9 / 2) + np.float32(84 * 2.0**-140)),
    ((np.array([[[4096]], [[1]], [[1]]]),) * 2 + ([1] * 3, [1] * 3, [0] * 3, [0] * 3), np.float32(2**24))])

# %% [markdown]
# A whole convolution, padding and all, by your function; by the NumPy twin, which takes one integer matrix product a
# group; and in C. And by ordinary float64 on the decoded values: it is the same number, up to the float32 additions
# between groups.

# %%
x = (rng.standard_normal((2, 4, 5, 5)) * 2.0 ** rng.integers(-9, 1, (2, 4, 1, 1))).astype(np.float32)
w = (rng.standard_normal((3, 4, 3, 3)) * 2.0 ** rng.integers(-3, 1, (3, 4, 1, 1))).astype(np.float32)
qx, qw, conv = fmt.encode(x), fmt.encode(w), Spec("conv2d", padding=(1, 1))


def integers(q: QTensor) -> np.ndarray:
    """The signed integers of a coded tensor."""
    return np.sign(q.codes) * fmt.integers()[np.abs(q.codes)]


def scales(q: QTensor, row: int) -> tuple[list, list]:
    """Significands 2 or 3 and exponents of the groups of one row, S_g = significand * 2^-exponent."""
    exponent, mantissa = (scale[row, :, 0, 0].astype(int) for scale in q.scales[1:])
    return (2 + mantissa).tolist(), (1 + exponent).tolist()


padded = np.pad(integers(qx), ((0, 0), (0, 0), (1, 1), (1, 1)))
units = float(qx.scales[0].item()) * float(qw.scales[0].item()) * 2.0 ** (-2 * fmt.fraction_bits)
loop = np.zeros((2, 3, 5, 5), np.float32)
for n, o, i, j in np.ndindex(loop.shape):
    (s_a, e_a), (s_w, e_w) = scales(qx, n), scales(qw, o)
    total = window(padded[n, :, i:i + 3, j:j + 3], integers(qw)[o], s_a, s_w, e_a, e_w)
    loop[n, o, i, j] = np.float32(float(total) * units)
with minilp.use_backend("numpy"):
    twin = fmt.contract(qx, qw, conv)
assert lab.same("your loop and the NumPy twin", loop, twin)
assert lab.same(f"the twin and {minilp.backend().name}", twin, fmt.contract(qx, qw, conv))
decoded, exact = np.pad(qx.decode().astype(float), ((0, 0), (0, 0), (1, 1), (1, 1))), np.zeros(loop.shape)
for n, o, i, j in np.ndindex(loop.shape):
    exact[n, o, i, j] = np.sum(decoded[n, :, i:i + 3, j:j + 3] * qw.decode()[o])
print(f"against float64: {np.abs(loop - exact).max() / np.abs(exact).max():.1e} of the largest output")
assert np.abs(loop - exact).max() < 1e-6 * np.abs(exact).max()

# %% [markdown]
# How the twin scales the sums of one group after the other (`terms` yields $P$, $s$ and $e$):

# %%
print(inspect.getsource(reference_mls.contract).split('"""')[2])

# %% [markdown]
# ## Where it costs
#
# A multiplication of small integers and an integer addition are cheap. The float32 addition between groups is not, and
# how often it comes depends on how many products a group collects first.
#
# > **Exercise 6** (★★, 3 lines). Write `tree_adds`: how many float32 additions between groups, one for each sum $P$,
# > the forward pass and the weight gradient of a convolution take. `k` is the kernel's side, `size` that of the output.
# >
# > - *Hint 1:* forward, a group is an input channel: every output of every channel `co` adds up `ci` sums.
# > - *Hint 2:* in the weight gradient a group is a sample: every weight adds up `n` sums.


# %% exercise=6 lines=3
def tree_adds(n: int, ci: int, co: int, k: int, size: int) -> tuple[int, int]:
    """Additions between groups, forward and weight gradient; n pictures, ci and co channels."""
    ### BEGIN SOLUTION
    forward = n * co * size * size * ci
    weight_grad = co * ci * k * k * n
    return forward, weight_grad
    ### END SOLUTION


# %%
def shape(n: int, ci: int, co: int, k: int, size: int) -> LayerShape:
    """A convolution whose output is as large as its input."""
    return LayerShape(name="conv", kind="conv2d", in_channels=ci, out_channels=co, kernel=(k, k),
                      padding=(k // 2, k // 2), in_size=(size, size), out_size=(size, size))


def counted(*layer: int) -> tuple[int, int]:
    """What minilp counts from the shapes: the tree's additions, forward and of the weight gradient."""
    recipe = presets.mls().set("first", "same").set("last", "same")
    both = [count_shapes([shape(*layer)], recipe, layer[0], training=on, optimizer=None).operations("tree")
            for on in (False, True)]
    forward, every = (found["fp32_add"] for found in both)
    return forward, every - 2 * forward  # the input gradient takes as many as the forward pass here


lab.check(6, tree_adds, [(layer, counted(*layer)) for layer in (
    (1, 8, 8, 3, 16), (4, 16, 16, 1, 8), (2, 5, 7, 5, 7), (32, 64, 32, 3, 8))])

# %% [markdown]
# Per multiply-accumulate this is $1/k^2$ forward and $1/\mathrm{size}^2$ in the weight gradient. With a 3x3 kernel
# there is one float32 addition for nine products; with a 1x1 kernel *every* product gets one. Priced with the units of
# the paper's 65 nm synthesis (*recalled*, so our assumption; milliwatts at one clock, so only ratios count): an MLS
# multiply-accumulate of $\langle 2,4 \rangle$ elements 0.189, a float32 addition 0.512, an FP8 multiplication with
# float32 accumulation 0.617. **At 1x1, how many percent of FP8's cost does MLS have?**

# %%
my_guess = None

# %%
prices = load_prices("mls-65nm")
mac, add, fp8 = (prices.find(name).value for name in ("mac_mls7", "fp32_add", "mac_fp8"))
kernels = np.array([1, 2, 3, 5, 7])
cost = 100 * (mac + add / kernels**2) / fp8
lab.guess(my_guess, round(float(cost[0]), 1), "%")
lab.lines({"MLS with its tree": ("mls", kernels, cost),
           "MLS, products alone": ("mls", kernels, 100 * mac / fp8 + 0 * cost),
           "FP8, float32 sums": ("minifloat", kernels, 100 + 0 * cost)},
          "side of the kernel", "energy of a forward MAC, percent of FP8's",
          "From 3x3 on the additions between groups are few; at 1x1 they cost more than the products save.")

# %%
assert cost[0] > 100 > cost[2]
print("share of 1x1 in the MACs; tree additions a MAC; times less than FP8: products, with tree")
per_mac, saved = {}, {}
for name in ("vgg16", "resnet18", "resnet50", "googlenet"):
    convs = [layer for layer in networks.network(name) if layer.kind == "conv2d"]
    ones = sum(layer.macs for layer in convs if layer.kernel == (1, 1)) / sum(layer.macs for layer in convs)
    adds = sum(layer.in_channels * layer.activations_out + layer.in_channels * layer.out_channels
               * math.prod(layer.kernel) + layer.input_grad * layer.out_channels * layer.activations_in
               for layer in convs)
    per_mac[name] = adds / sum(layer.training_macs for layer in convs)
    ratios = papers.mls(networks.network(name))
    saved[name] = ratios["+ tree"][1]
    print(f"{name:10} {100 * ones:5.1f} %  {per_mac[name]:.3f}   "
          f"{ratios['MACs only'][1]:.2f}x  {saved[name]:.2f}x")
assert saved["vgg16"] > saved["googlenet"] > saved["resnet50"]

# %% [markdown]
# The more of a network's work lies in 1x1 convolutions, the less is saved. (These ratios leave out quantisation, batch
# norm and the optimizer; `minilp energy --paper mls` shows them added one by one.)
#
# ## The experiment: fewer bits, with groups and without
#
# Does the error matter for training? Elements of three bits this time: a sign and $\langle 0, 2 \rangle$, so four
# magnitudes, in all three operands (errors are rounded stochastically there). Once with one scale a tensor, once with
# `nc` groups; beside them the recipe `mls`, $\langle 2,1 \rangle$ elements as the abstract says for CIFAR-10
# (*verified*), the rest as the table below tags it, and float32. Two seeds each (one under `FAST=1`). **By how many
# points will groups raise the test accuracy of the three-bit network?** (A few seconds a training.)

# %%
my_guess = None

# %%
RECIPES = {"float32": presets.fp32(), "<2,1>, nc groups": presets.mls(),
           "<0,2>, nc groups": presets.mls(0, 2), "<0,2>, no groups": presets.mls(0, 2, group="none")}
SEEDS = (0,) if lab.fast() else (0, 1)
runs = {name: [fit(recipe, seed)[1:] for seed in SEEDS] for name, recipe in RECIPES.items()}
right = {name: [percent for _, percent in found] for name, found in runs.items()}
loss = {name: np.mean([losses for losses, _ in found], axis=0) for name, found in runs.items()}
last = {name: float(curve[-len(curve) // EPOCHS:].mean()) for name, curve in loss.items()}
for name in RECIPES:
    print(f"{name:18} loss of the last epoch {last[name]:.2f}, "
          f"test {', '.join(f'{percent:.1f} %' for percent in right[name])}")
gained = float(np.mean(right["<0,2>, nc groups"]) - np.mean(right["<0,2>, no groups"]))
lab.guess(my_guess, round(gained, 1), "points")

# %%
steps = np.arange(8, len(loss["float32"]) + 1, 8)
lab.lines({name: ("fp32" if name == "float32" else "mls", steps, curve[:steps[-1]].reshape(-1, 8).mean(1))
           for name, curve in loss.items()}, "training step", "training loss (shapes10), mean over seeds",
          "Elements of three bits learn faster with group scales than without.", markers=False)

# %%
assert gained > 0 and last["<0,2>, no groups"] > 1.1 * last["<0,2>, nc groups"]
assert np.mean(right["<2,1>, nc groups"]) > np.mean(right["float32"]) - 20

# %% [markdown]
# Group scales do for training what they do for the error. How far four bits stay behind float32, so few seeds of so
# short a training cannot say; the paper claims less than a point for CIFAR-10 networks trained to the end at
# $\langle 2,1 \rangle$ (*verified*, in an abstract).
#
# ## Break it
#
# *Round the group scale down instead of up.* Then the largest elements of a group are above 1, and saturate. Here are
# the errors of the backward pass with both, and the *bias*: how much smaller all magnitudes together become.

# %%
def with_scales(x: np.ndarray, down: bool) -> np.ndarray:
    """Coded and decoded, with group scales rounded up, or one step of 1, 1.5, 2, 3, ... further down."""
    tensor, exponent, mantissa = fmt.encode(x).scales
    if down:
        exponent, mantissa = np.where(mantissa == 1, exponent, exponent + 1).astype(np.int16), 1 - mantissa
    return fmt.encode(x, scales=(tensor, exponent, mantissa)).decode()


gone, bias = {}, {}
for down in (False, True):
    total = sum(float(np.abs(x).sum(dtype=float)) for x in tensors["error"])
    found = [with_scales(x, down) for x in tensors["error"]]
    gone[down] = sum(float(np.abs(x - v).sum(dtype=float))
                     for x, v in zip(tensors["error"], found, strict=True)) / total
    bias[down] = sum(float(np.abs(v).sum(dtype=float)) for v in found) / total - 1
    print(f"rounded {'down' if down else 'up':4}: ARE {100 * gone[down]:5.1f} %, "
          f"magnitudes {100 * bias[down]:+5.1f} %")
assert bias[True] < bias[False] - 0.01

# %% [markdown]
# Rounding down makes the small elements finer and cuts the large ones off, and always in the same direction. Noise
# averages out over many numbers; a bias does not, and it multiplies from layer to layer.
#
# *Shift the integer to the right* by the groups' exponents, instead of moving the exponent of a float. A group far
# below the largest then has no bits left:

# %%
sums = rng.integers(-200, 200, 20_000)
for exponent in (0, 4, 8, 16):
    shifted, wanted = sums >> exponent, sums * 2.0**-exponent
    print(f"exponents of {exponent:2} together: {len(np.unique(shifted)):3} different values left of "
          f"{len(np.unique(sums))}, mean off by {np.mean(shifted - wanted):+.3f}")
assert set(np.unique(sums >> 16)) == {-1, 0} and np.mean((sums >> 8) - sums / 256) < -0.4

# %% [markdown]
# Nothing is left but the sign, and cutting off rounds every sum down (lesson 01). So minilp adds group exponents to the
# exponent of the float32 term, where there is room for them.
#
# *Give a 1x1 kernel its own group.* Under `nc`, every weight of a 1x1 convolution is a group. `least=1` allows that;
# by default minilp falls back to one scale for each output channel where a group would have fewer than four elements.

# %%
pointwise = rng.standard_normal((64, 64, 1, 1)).astype(np.float32)
for name, kind in (("nc, least=1", MLS(2, 1, least=1)), ("nc, as minilp does it", MLS(2, 1)),
                   ("no groups", MLS(2, 1, group="none"))):
    q = kind.encode(pointwise)
    error = 100 * float(np.abs(pointwise - q.decode()).sum() / np.abs(pointwise).sum())
    bits = kind.bits + kind.scales_nbits(q.scales) / q.size
    print(f"{name:22} {len(np.unique(np.abs(q.codes)))} different magnitudes of codes, "
          f"{bits:5.2f} bits an element, ARE {error:4.1f} %")
alone = MLS(2, 1, least=1).encode(pointwise)
assert len(np.unique(np.abs(alone.codes))) == 1 and MLS(2, 1).encode(pointwise).scales[1].size == 64

# %% [markdown]
# Every weight is the largest of its group, so every element gets the largest code: four bits say nothing but the sign,
# and the group scale, of nine bits, is the number. Groups must be large to be cheap.
#
# ## Differences from the paper
#
# Tags: *verified*: read in an abstract or in the authors' simulator. *recalled*: from memory, not confirmed. *derived*:
# computed here or forced by what is verified. *default*: our choice where nothing is known.
#
# | what | the source | here | tag | effect |
# |---|---|---|---|---|
# | $X \approx \pm S_t S_g \bar x$, $S_t$ the maximum in float32 | the simulator | the same | verified | fresh scales at every encoding |
# | group scale | rounded up, 0 or 1 bits of mantissa (simulator); $\langle 8,1 \rangle$ as the main setting | $\langle 8,1 \rangle$ | verified; recalled | |
# | grouping | four ways exist (simulator); `nc` for all three tensors as the final choice | `nc` | verified; recalled | tables above |
# | small groups | not known | fewer than 4 elements fall back to `n` | default | 1x1 kernels, above |
# | what rounds up to 1.0 | kept (simulator), although no code is left for it | saturates at the largest; `top="keep"` keeps it | verified; default | a bias at $\langle 2,1 \rangle$; question 2 measures it |
# | gradual underflow | both ways in the simulator | gradual; `underflow="sudden"` is the other | recalled | |
# | rounding | activations and weights to nearest, errors stochastically (simulator) | the same | verified | the tables above round all to nearest |
# | each operand coded once a step, for all three convolutions | the simulator | the same | verified | |
# | integer sums inside a group, shifts and an add between | structure of the paper's unit | the same, exact | recalled; derived | |
# | additions between groups | float32 | float32, in a fixed order | recalled | the cost of 1x1 |
# | first convolution and last layer | float32 (simulator) | float32 | verified | |
# | average relative error | the paper reports it for each layer; its formula is not known | $\sum|x - Q(x)| / \sum|x|$ | recalled; default | |
# | energy | ratios of 8.3 to 10.2 to float32, 1.9 to 2.3 to FP8 (abstract); unit costs | the units, and a reconstruction | verified; recalled | `minilp energy --paper mls` |
# | accuracy | within 1 point at $\langle 2,1 \rangle$ on CIFAR-10 (abstract) | short trainings on shapes10 | verified; measured | |
#
# ## Summary
#
# 1. A number of MLS is a small float under a group scale under a tensor scale, and the element is a small integer.
# 2. Exponent bits widen an element's range, group scales make range cheaper; each level lowers the error.
# 3. Inside a group sums are sums of integers; two group scales meet in at most two shifts and an addition.
# 4. Between groups sums are float32, and their number is one for each group, not for each product.
# 5. With 1x1 kernels each product is a group of its own in the forward pass: there the advantage over FP8 is gone.
#
# ## Questions
#
# 1. *(code)* Which grouping has the lowest ARE for the 3x3 weights *per bit stored*? Use `fmt.bits` and `scales_nbits`.
# 2. *(code)* Measure the bias of `MLS(2, 1)` and of `MLS(2, 1, top="keep")` under stochastic rounding
#    (`fmt.encode(x, stream=minilp.formats.Stream(seed=1))`). Why does one of them have none?
# 3. *(thought)* Why is a second encoding, with fresh scales, of an already decoded tensor not always the same tensor?
# 4. *(thought)* Activations of a 1x1 convolution have large groups (H x W), and yet its forward pass adds in float32
#    for every product. Why does the large group not help, and in which of the three products does it?
#
# Next: lesson 04 multiplies logarithms, and trains weights that are integers.
