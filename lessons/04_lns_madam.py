# %% [markdown]
# # Lesson 04: LNS-Madam
#
# Afterwards you can **count** a dot product of logarithmic numbers in bins, one for each remainder, and **trade** the
# size of a table of constants for error; **derive** the multiplicative update and **show** which updates vanish at 10
# bits, and why; **train** a network whose weights are integers and have no float copy.
#
# *You need:* lesson 01 (logarithmic numbers, rounding), derivatives. *Time:* 75 to 90 minutes to read and solve; the
# machine takes under 2 minutes. *Code it walks through:* `minilp/formats/lns.py`, `minilp/kernels/lns_bins.py` with
# its NumPy twin `reference_lns_bins.py`, `minilp/optim/madam.py`, `minilp/stored.py`.
#
# The paper is Zhao et al., "LNS-Madam: Low-Precision Training in Logarithmic Number System Using Multiplicative Weight
# Update" (arXiv 2106.13914; IEEE Trans. Computers 71(12), 2022). Its abstracts and its authors' released optimizer were
# read for minilp, its body was not. So some of what follows is our assumption; the table near the end says which.

# %%
import dataclasses
import inspect
import math

import numpy as np

import minilp
from minilp import data, models, optim, presets
from minilp import lessons as lab
from minilp.experiments import lns_theory
from minilp.formats import LNS
from minilp.formats.spec import Spec
from minilp.kernels import lns_bins, reference_lns_bins
from minilp.nn import functional as F
from minilp.stored import lns_update

rng = np.random.default_rng(0)
IMAGES, EPOCHS, TUNING = (1000, 6, 2) if lab.fast() else (2000, 8, 3)
print(f"minilp {minilp.__version__}, numpy {np.__version__}, {minilp.backend().name}; "
      f"networks see {IMAGES} images of shapes10 for {EPOCHS} epochs")

# %% [markdown]
# ## Symbols
#
# | symbol | meaning | in code | shape |
# |---|---|---|---|
# | $B$ | bits of a number, sign included | `fmt.bits` | a number |
# | $\gamma$ | levels an octave (the paper's base factor), a power of two | `fmt.gamma` | a number |
# | $e$ | exponent, from 0 to $2^{B-1} - 1$: the value is $\pm s \cdot 2^{e/\gamma}$ | `abs(code) - 1` | that of the tensor |
# | $s$ | the smallest value of the tensor's format | `fmt.s(maximum)` | one for the tensor |
# | $p = q\gamma + r$ | sum of two exponents, its quotient and its remainder | `p >> 3`, `p & 7` for $\gamma = 8$ | one a product |
# | $v_r$ | the constant $2^{r/\gamma}$ | `lns_bins.lut_table(gamma)` | $\gamma$ numbers |
# | $W, g$ | a weight, and the derivative of the loss by it | `param.code`, `param.grad` | that of the layer |
# | $g^*$ | the gradient divided by its own running size | in `optim.Madam` | that of the layer |
# | $\eta$ | learning rate: octaves moved by $g^* = 1$ | `lr` | a number |
# | $B_U, \gamma_U$ | bits and levels an octave of the *stored* weights | `recipe.update.format` | numbers |
#
# A code is 0 for zero, else the sign times the *level* $e + 1$, as in lesson 01: the largest magnitude of the tensor
# has level $2^{B-1}$ (one less in stored weights, where zero takes one of the patterns: `fmt.top`).

# %% [markdown]
# ## One number by hand
#
# Multiply $0.3$ by $-0.7$ with 8 bits and $\gamma = 8$, in a tensor whose largest magnitude is 1. The largest level,
# $e = 127$, stands for 1, so $s = 2^{-127/8}$.
#
# * $8 \log_2 0.3 = -13.9$ rounds to $-14$: $e = 127 - 14 = 113$. $8 \log_2 0.7 = -4.1$ rounds to $-4$: $e = 123$.
# * Multiplying is adding: $p = 113 + 123 = 236$. The sign is the XOR of the signs: minus.
# * $236 = 29 \cdot 8 + 4$: the product is $2^{29} \cdot 2^{4/8}$, a one shifted by 29 places, times the constant
#   $2^{4/8}$ that belongs to the remainder 4.
# * With both scales: $-2^{29} \cdot 2^{0.5} \cdot 2^{-127/4} = -2^{-2.25} = -0.21022$.
#
# Do the same for $0.3$ by $0.3$ on paper. Then compare:

# %%
fmt = LNS(8, gamma=8)
print(fmt.explain(0.3, -0.7))
print()
print(fmt.explain(0.3, 0.3).split("\n", 4)[-1])

# %% [markdown]
# ## A product is an addition
#
# > **Exercise 1** (★, 4 lines). Write `product` for two codes: sign, quotient and remainder of their product. If a
# > code is zero, the sign is 0, and so are the others.
# >
# > - *Hint 1:* the exponent of a code is `abs(code) - 1`.
# > - *Hint 2:* `divmod(p, gamma)` gives both; hardware needs no division, as $\gamma$ is a power of two.


# %% exercise=1 lines=4
def product(a: int, b: int, gamma: int) -> tuple[int, int, int]:
    """Sign (-1, 0 or 1), quotient and remainder of the product of two codes."""
    ### BEGIN SOLUTION
    if a == 0 or b == 0:
        return 0, 0, 0
    q, r = divmod(abs(a) - 1 + abs(b) - 1, gamma)
    return (1 if (a < 0) == (b < 0) else -1), q, r
    ### END SOLUTION


# %%
lab.check(1, product, [((114, -124, 8), (-1, 29, 4)), ((114, 114, 8), (1, 28, 2)), ((-1, -1, 8), (1, 0, 0)),
                       ((0, -5, 8), (0, 0, 0)), ((7, 0, 2), (0, 0, 0)), ((-16, 3, 1), (-1, 17, 0)),
                       ((128, 128, 8), (1, 31, 6))])

# %% [markdown]
# ## Count in bins
#
# A dot product adds many products. Multiplying each by its constant $2^{r/\gamma}$ would bring back the multiplications
# that the format has just saved. But there are only $\gamma$ different constants. So keep $\gamma$ integers, one for
# each remainder; add $\pm 2^q$ to the one that belongs to $r$; and multiply once, when the sum is complete:
#
# $$ a \cdot b = s_a s_b \sum_{r=0}^{\gamma-1} 2^{r/\gamma}
#    \underbrace{\sum_{i:\, r_i = r} \pm 2^{q_i}}_{\text{an integer: bin } r} $$
#
# > **Exercise 2** (★★, 5 lines). Write `fill_bins`: the $\gamma$ integers for two lists of codes.
# >
# > - *Hint 1:* start from `np.zeros(gamma, np.int64)`; $2^q$ is `1 << q`.
# > - *Hint 2:* your `product` does the rest; a sign of 0 adds nothing.


# %% exercise=2 lines=5
def fill_bins(a: list[int], b: list[int], gamma: int) -> np.ndarray:
    """The sum of products as one integer for each remainder."""
    ### BEGIN SOLUTION
    bins = np.zeros(gamma, np.int64)
    for code_a, code_b in zip(a, b, strict=True):
        sign, q, r = product(code_a, code_b, gamma)
        bins[r] += sign * (1 << q)
    return bins
    ### END SOLUTION


# %%
lab.check(2, fill_bins, [
    (([114], [-124], 8), np.array([0, 0, 0, 0, -(1 << 29), 0, 0, 0])),
    (([3, 3, -1, 0], [2, 1, 1, 9], 2), np.array([2 - 1, 2])),
    (([5, -5, 6], [9, 9, 1], 4), np.array([0, 2, 0, 0])),
    (([128, 128], [128, 128], 8), np.array([0, 0, 0, 0, 0, 0, 1 << 32, 0]))])

# %% [markdown]
# Three ways to one dot product: your loop; the NumPy twin of minilp's C kernel, which contracts whole matrices; the C
# kernel itself (`path="bins"` asks the format for them). The bins are closed by $\gamma$ multiplications in float64,
# the scales are multiplied on, and the result is rounded to float32 once.

# %%
binned, linear = LNS(8, gamma=8, path="bins"), Spec("linear")
qx, qw = (binned.encode(rng.standard_normal((rows, 100)).astype(np.float32)) for rows in (4, 6))
constants = 2.0 ** (np.arange(8) / 8)
scale = float(binned.s(qx.scales[0]).item() * binned.s(qw.scales[0]).item())


def close(bins: np.ndarray) -> np.float32:
    """A finished sum: each bin times its constant, ascending, then the scales, then one rounding."""
    total = 0.0
    for constant, whole in zip(constants, bins, strict=True):
        total += constant * float(whole)
    return np.float32(scale * total)


loop = np.array([[close(fill_bins(row.tolist(), column.tolist(), 8)) for column in qw.codes]
                 for row in qx.codes])
with minilp.use_backend("numpy"):
    twin = binned.contract(qx, qw, linear)
assert lab.same("your loop and the NumPy twin", loop, twin)
assert lab.same(f"the twin and {minilp.backend().name}", twin, binned.contract(qx, qw, linear))

# %% [markdown]
# How the twin closes the bins (`plan.lut` is 8 here, so `low` is 1 and each bin is a constant's):

# %%
print(inspect.getsource(reference_lns_bins.close))

# %% [markdown]
# Integers do not care for the order of a sum; floats do. Here the same dot product is added up in 200 random orders,
# once as float32 products, once in bins:

# %%
many = LNS(8, gamma=8).encode(rng.standard_normal((2, 512)).astype(np.float32))
values = many.decode()
orders = [rng.permutation(512) for _ in range(200)]
floats = {float(np.cumsum(values[0, o] * values[1, o], dtype=np.float32)[-1]) for o in orders}
whole = {lns_bins.lns_contract("linear", many.codes[:1, o], many.codes[1:, o],
                               gamma_a=8, gamma_b=8, scale=1.0).item() for o in orders}
print(f"200 orders: {len(floats)} different float32 sums, {len(whole)} from bins")
assert len(floats) > 1 and len(whole) == 1

# %% [markdown]
# **How many bits, sign included, must a bin have for 32 products of 8-bit numbers at $\gamma = 8$, so that it can never
# overflow?** Look for the largest quotient, then for what 32 of them add up to.

# %%
my_guess = None

# %%
largest = (127 + 127) // 8
needed = (32 << largest).bit_length() + 1
print(f"quotients up to {largest}; 32 products up to 2^{largest + 5}; a bin of {needed} bits with the sign")
lab.guess(my_guess, needed, "bits")

# %% [markdown]
# minilp keeps bins of 64 bits, and proves for each contraction, from the codes that are there, that they suffice.
# Where they do not it counts how often each exponent sum occurs. A narrower accumulator is something to break, below.
#
# ## A smaller table
#
# $\gamma$ constants are $\gamma$ bins, and bins cost hardware. The *hybrid* conversion keeps `lut` of the constants
# and draws a straight line between them. Split the remainder: $r = r_M + r_L$, where $r_M$ is a multiple of
# $\gamma / \mathrm{lut}$ and $r_L$ what is left over. Then
#
# $$ 2^{r/\gamma} = 2^{r_M/\gamma} \cdot 2^{r_L/\gamma} \approx
#    \underbrace{2^{r_M/\gamma}}_{\text{table}} \cdot (1 + r_L/\gamma) $$
#
# since $2^x \approx 1 + x$ for $0 \le x \le 1$ (Mitchell's approximation: exact at 0 and 1, too large between). In
# bins, $(1 + r_L/\gamma) \cdot 2^q$ is $(\gamma + r_L) \cdot 2^q$ with $\log_2 \gamma$ bits behind the point: still a
# small integer and a shift.
#
# > **Exercise 3** (★★, 3 lines). Write `constant`: what stands in for $2^{r/\gamma}$ when the table has `lut` entries.
# >
# > - *Hint 1:* `r % (gamma // lut)` is $r_L$.
# > - *Hint 2:* `lut = gamma` must give the exact constants, `lut = 1` the line alone.


# %% exercise=3 lines=3
def constant(r: int, gamma: int, lut: int) -> float:
    """The approximation of 2^(r / gamma) by a table of lut entries and straight lines."""
    ### BEGIN SOLUTION
    low = r % (gamma // lut)
    return 2.0 ** ((r - low) / gamma) * (1 + low / gamma)
    ### END SOLUTION


# %%
lab.check(3, constant, [((r, gamma, lut), float(lns_bins.lut_table(gamma, lut)[r]))
                        for gamma, lut in ((8, 1), (8, 2), (8, 4), (8, 8), (4, 2), (1, 1))
                        for r in range(gamma)])

# %% [markdown]
# **With a single entry, by how many percent is the worst of the eight constants wrong?** (Whole percent will do.)

# %%
my_guess = None

# %%
exact = lns_bins.lut_table(8)
error = {lut: 100 * (lns_bins.lut_table(8, lut) / exact - 1) for lut in (1, 2, 4, 8)}
lab.guess(my_guess, float(error[1].max()), "%")
lab.lines({f"{lut} of 8 entries": ("lns", range(8), error[lut]) for lut in (1, 2, 4, 8)},
          "remainder r", "error of the constant, percent",
          "Dropped constants err upwards, and most where the line has run furthest from its entry.")

# %% [markdown]
# The error is never negative. Two entries are hardly better than one at the worst remainder: the line that starts at
# an entry does not aim at the next one, it aims at twice the entry, an octave further. Since all errors point upwards,
# most of the error is a common factor, which a scale or a batch norm behind the product takes out again. What is left
# is noise. Measured on dot products of 256 normal numbers, before and after the best common factor is divided out:

# %%
TRIALS = 200 if lab.fast() else 1000
a, b = (fmt.encode(rng.standard_normal((TRIALS, 256)).astype(np.float32)).codes for _ in range(2))


def dots(lut: int) -> np.ndarray:
    """Dot products of the rows of a and b with a table of so many entries."""
    return np.array([lns_bins.lns_contract("linear", a[i:i + 1], b[i:i + 1], gamma_a=8, gamma_b=8,
                                           scale=2.0**-32, lut=lut).item() for i in range(TRIALS)], float)


truth, noise = dots(8), {}
for lut in (1, 2, 4):
    found = dots(lut)
    gain = found @ truth / (truth @ truth)
    raw, noise[lut] = (np.sqrt(np.mean((v - truth) ** 2) / np.mean(truth**2)) for v in (found, found / gain))
    print(f"{lut} of 8 entries: error {100 * raw:4.1f} % of a typical sum; gain {gain:.3f}; "
          f"without it {100 * noise[lut]:4.1f} %")
assert noise[4] < noise[2] and noise[4] < noise[1]
rounding = 100 * (2 ** (1 / 16) - 1)
print(f"for comparison: rounding to 8 bits at gamma 8 already errs by up to {rounding:.1f} % a number")

# %% [markdown]
# What does it buy? The paper gives the energy of one operation for each table size (*recalled*, so our assumption and
# not a result to rely on): 19.02, 17.24, 14.71 and 12.29 fJ for 8, 4, 2 and 1 entries. The paper trains
# with the approximation in place, so that the network adapts to it (*recalled*); the first question at the end lets you
# try.
#
# ## The gap grows with the weight
#
# Now the update. Between steps a weight is a logarithmic number too, of $B_U$ bits. Its neighbours lie a *factor*
# $2^{1/\gamma_U}$ away: the larger the weight, the wider the gap. SGD *adds* a step that knows nothing of that.
#
# > **Exercise 4** (★, 2 lines). Write `survives`: whether the step that is added to the positive weight `w`, which lies
# > on a level, leads to another level after rounding to nearest (in the logarithm).
# >
# > - *Hint 1:* by how many levels does the logarithm move? $\gamma \log_2 \frac{w + \text{step}}{w}$.
# > - *Hint 2:* it survives if that number does not round to 0. The result is `True` or `False`.


# %% exercise=4 lines=2
def survives(w: float, step: float, gamma: int) -> bool:
    """Whether w + step is rounded to another level than w; both are positive."""
    ### BEGIN SOLUTION
    levels = gamma * math.log2((w + step) / w)
    return round(levels) != 0
    ### END SOLUTION


# %%
lab.check(4, survives, [((1.0, 0.012, 32), True), ((1.0, 0.010, 32), False), ((0.1, 0.010, 32), True),
                        ((0.1, 0.0010, 32), False), ((1.0, -0.0112, 32), True), ((1.0, -0.0104, 32), False),
                        ((1.0, 0.0003, 2048), True), ((1.0, 0.0001, 2048), False), ((0.25, 0.25, 1), True)])

# %% [markdown]
# ## Derive the multiplicative update
#
# Take the logarithm as the thing to learn: $x = \log_2 |W|$, with the sign fixed. The chain rule gives
#
# $$ \frac{\partial L}{\partial x} = \frac{\partial L}{\partial W} \cdot \frac{\partial W}{\partial x}
#    = g \cdot W \ln 2 \qquad\text{since } W = \mathrm{sign}(W) \cdot 2^x. $$
#
# So downhill is $-\mathrm{sign}(g)\,\mathrm{sign}(W)$: a positive gradient shrinks a positive weight and lets a
# negative one grow. The *size* is still wrong for a lattice: $|g W|$ differs from weight to weight. Divide $g$ by its
# own size, the root of a running mean of $g^2$, and call it $g^*$; leave $|W|$ out. Then
#
# $$ x \leftarrow x - \eta\, g^*\, \mathrm{sign}(W) \qquad\Longleftrightarrow\qquad
#    W \leftarrow W \cdot 2^{-\eta\, g^*\, \mathrm{sign}(W)}. $$
#
# A step is a *factor* now, as the gap is. On a stored weight $x = k / \gamma_U$ plus a constant, and the step becomes
# one of integers:
#
# $$ k \leftarrow k - R(\eta\, \gamma_U\, g^*\, \mathrm{sign}(W)), \quad\text{limited to the levels that exist.} $$
#
# That is Madam. $R$ rounds to nearest or at random. With $\eta = 1/128$, the released default (*verified*), and 16 bits
# ($\gamma_U = 2048$), $g^* = 1$ moves a weight by 16 levels; with 10 bits ($\gamma_U = 32$) by a quarter of one.
#
# > **Exercise 5** (★★, 3 lines). Write `madam_step` on arrays: the codes after one step with $R$ to nearest.
# > `units` is $\eta\gamma_U$, `top` the largest level, 1 the smallest; zeros stay zero.
# >
# > - *Hint 1:* `np.rint` rounds; `np.sign(codes)` is the sign of the weight, and 0 for zero.
# > - *Hint 2:* work on the level `np.abs(codes)`, limit it by `np.clip`, and put the sign on at the end.


# %% exercise=5 lines=3
def madam_step(codes: np.ndarray, g: np.ndarray, units: float, top: int) -> np.ndarray:
    """Codes after one step of Madam; g is the normalised gradient."""
    ### BEGIN SOLUTION
    turn = np.rint(units * g * np.sign(codes)).astype(int)
    level = np.clip(np.abs(codes) - turn, 1, top)
    return np.sign(codes) * level
    ### END SOLUTION


# %%
lab.check(5, madam_step, [
    ((np.array([100, -100, 0, 100]), np.array([1.0, 1, 1, -1]), 16, 511), np.array([84, -116, 0, 116])),
    ((np.array([99, -100, 99, 9]), np.array([1.0, 3, 1.9, -2.1]), 0.25, 511), np.array([99, -101, 99, 10])),
    ((np.array([3, 510, -1]), np.array([10.0, -10, 10]), 1, 511), np.array([1, 511, -11])),
    ((np.array([5, -5]), np.array([10.0, -10]), 2, 511), np.array([1, -1]))])

# %% [markdown]
# The same in minilp. A parameter `live_as` codes; no float array is kept behind it, and `Madam` turns the codes. In its
# very first step the running mean (decay $\beta = 0.999$, *verified*), divided by $1 - \beta^t$ because it starts at 0
# (*bias correction*), is the square of that one gradient, so $g^*$ is exactly $\pm 1$:

# %%
stored = lns_update(10).format  # LNS(bits=10, gamma=32, zero="code"): zero takes one of the patterns
param = minilp.nn.Parameter(rng.normal(0, 0.05, (64, 32)).astype(np.float32))
param.live_as(stored)
madam = optim.Madam([param], lr=1 / 8)  # 4 levels for g* = 1
before, bound = param.code.codes.copy(), float(param.code.scales[0].item())
param.grad = rng.normal(0, 1e-3, (64, 32)).astype(np.float32)
mine = madam_step(before.astype(int), np.sign(param.grad), 32 / 8, stored.top)
madam.step()
assert lab.same("your step and minilp's", mine, param.code.codes)
print(f"{stored}: codes of {param.code.codes.dtype}, one scale, {bound:.4f}; "
      f"data is decoded at each access, {'writable' if param.data.flags.writeable else 'read-only'}")

# %%
print(inspect.getsource(optim.Madam.update_codes))

# %% [markdown]
# The scale is fixed when the optimizer is built, at `p_scale` times the root mean square of the weights. So the largest
# level is also the bound on weights that the released code clamps to.
#
# ## The forward pass needs no float either
#
# The stored weight has 16 bits, the contraction wants 8. Both formats span the same octaves
# ($\gamma_U = \gamma \cdot 2^{B_U - B}$) under the same largest magnitude, so 256 fine levels make one coarse one.
# Rounding is a shift of integers.
#
# > **Exercise 6** (★★★, 3 lines). Write `coarse_level` for one positive level: count how many fine steps it lies below
# > the largest level `fine_top`, make coarse steps of them by a *rounding* shift, and count these down from `top`, not
# > below 1.
# >
# > - *Hint 1:* `d >> shift` cuts off. To round, add half a coarse step first; half a step is `(1 << shift) >> 1`, also
# >   when `shift` is 0.
# > - *Hint 2:* the steps are counted from the *top* because the two formats share their largest value.


# %% exercise=6 lines=3
def coarse_level(level: int, fine_top: int, top: int, shift: int) -> int:
    """A level of the stored format on a lattice with 2^shift times fewer levels an octave."""
    ### BEGIN SOLUTION
    below = fine_top - level
    steps = (below + ((1 << shift) >> 1)) >> shift
    return max(top - steps, 1)
    ### END SOLUTION


# %%
def narrowed(bits: int) -> list:
    """Levels of the stored format, and what minilp makes of them."""
    fine, coarse = lns_update(bits).format, LNS(8, gamma=8)
    levels = np.append(rng.integers(1, fine.top + 1, 40), [1, 2, fine.top - 1, fine.top]).astype(np.int16)
    tensor = dataclasses.replace(fine.encode(np.ones(len(levels), np.float32)), codes=levels)
    return [((int(level), fine.top, coarse.top, bits - 8), int(code))
            for level, code in zip(levels, fine.narrow(tensor, coarse).codes, strict=True)]


lab.check(6, coarse_level, narrowed(16) + narrowed(10) + [((5, 128, 128, 0), 5), ((100, 256, 128, 1), 50)])

# %% [markdown]
# ## Which updates vanish
#
# A network to look at: three convolutions and a classifier, trained by SGD in float32 weights for a few epochs, on
# logarithmic operands. The training loop is an ordinary one. `recipe` says what the contractions' operands are
# (activations, weights, errors, which are the gradients of a layer's output, weight gradients: 8 bits, $\gamma = 8$;
# first and last layer float32), and what *all* parameters live as between steps. (A few seconds.)

# %%
train_set, test_set = data.shapes10.load(0, IMAGES, 1000)


def recipe(bits: int | None, rounding: str = "nearest"):
    """LNS-Madam's contractions; weights stored with so many bits, or in float32."""
    return dataclasses.replace(presets.lns_madam(), update=bits and lns_update(bits, rounding=rounding))


def fit(recipe, optimizer, epochs: int, start: dict | None = None, **options):
    """Train; returned: the model, the loss of every step, the share of weights that each step moved."""
    minilp.manual_seed(0)
    model = models.build("small_cnn", width=8)
    if start is not None:
        model.load_state_dict(start)
    recipe.apply(model)
    stepper = optimizer(model.parameters(), **options)
    loader = data.Loader(train_set, 32, seed=0)
    schedule = optim.OneCycleLR(stepper, options["lr"], epochs * len(loader), cycle_momentum=False)
    losses, moved = [], []
    for epoch in range(epochs):
        for x, y in loader.epoch(epoch):
            old = numbers(model)
            with minilp.rounding_context(0, len(losses)):
                loss = F.cross_entropy(model(minilp.Tensor(x)), y)
                stepper.zero_grad()
                loss.backward()
                stepper.step()
            schedule.step()
            losses.append(loss.item())
            moved.append(float(np.mean(old != numbers(model))))
    return model, losses, moved


def numbers(model) -> np.ndarray:
    """What the weights of convolutions and linear layers are stored as: codes, or floats."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    return np.concatenate([(p.data if p.code is None else p.code.codes).ravel() for p in weights])


def accuracy(model) -> float:
    """Share of the test images that the model names, in percent."""
    model.eval()
    with minilp.no_grad():
        hits = [model(minilp.Tensor(x)).data.argmax(1) == y
                for x, y in data.Loader(test_set, 250, shuffle=False).epoch(0)]
    model.train()
    return 100 * float(np.concatenate(hits).mean())


network, losses, _ = fit(recipe(None), optim.SGD, EPOCHS, lr=0.8)
start = {name: array.copy() for name, array in network.state_dict().items()}
print(f"loss {np.mean(losses[:8]):.2f} at the start, {np.mean(losses[-8:]):.2f} at the end; "
      f"test {accuracy(network):.1f} %")

# %% [markdown]
# Now one more step, at 10 bits, by both rules, on the largest layer. To be fair to both, SGD gets the learning rate
# that moves the *median* weight by as many octaves as Madam with $\eta = 1/32$ does: about a level. The weights are
# sorted by size. **Of the largest tenth of the weights, how many percent will SGD move to another level?**

# %%
my_guess = None

# %%
gradients = []
for x, y in data.Loader(train_set, 32, seed=1).epoch(0):
    network.zero_grad()
    F.cross_entropy(network(minilp.Tensor(x)), y).backward()
    gradients.append(network.conv3.weight.grad.ravel().astype(float))
weight = network.conv3.weight.data.ravel()
g, size = gradients[-1], np.sqrt(np.mean(np.square(gradients), axis=0))
normal = np.divide(g, size, out=np.zeros_like(g), where=size > 0).clip(-10, 10)
rate = np.median(np.abs(normal)) / 32 * math.log(2) / np.median(np.abs(g / weight))
tenths = np.array_split(np.argsort(np.abs(weight)), 10)


def moved_by_tenth(bits: int) -> dict[str, list[float]]:
    """Percent of each tenth of the weights that one step moves to another level, to nearest."""
    fmt = lns_update(bits).format
    old = fmt.encode(weight)
    sgd = fmt.encode((old.decode() - rate * g).astype(np.float32), scales=old.scales).codes
    new = madam_step(old.codes.astype(int), normal, fmt.gamma / 32, fmt.top)
    return {rule: [100 * float(np.mean((codes != old.codes)[part])) for part in tenths]
            for rule, codes in (("SGD", sgd), ("Madam", new))}


shares = moved_by_tenth(10)
lab.guess(my_guess, shares["SGD"][-1], "%")
middle = [float(np.median(np.abs(weight[part]))) for part in tenths]
lab.lines({"Madam, 10 bits": ("lns", middle, shares["Madam"]), "SGD, 10 bits": ("lns", middle, shares["SGD"]),
           "SGD, 16 bits": ("lns", middle, moved_by_tenth(16)["SGD"])},
          "magnitude of the weight (median of a tenth)", "weights that a step moves, percent",
          "SGD's share falls as the weights grow; Madam does not ask how large a weight is.", logx=True)

# %%
print(f"SGD: {shares['SGD'][0]:.0f} % of the smallest tenth, {shares['SGD'][-1]:.0f} % of the largest; "
      f"Madam: {shares['Madam'][0]:.0f} % and {shares['Madam'][-1]:.0f} %")
assert shares["SGD"][0] - shares["SGD"][-1] > 30 > 2 * abs(shares["Madam"][0] - shares["Madam"][-1])

# %% [markdown]
# A larger learning rate would move the large weights as well, but then a small one is thrown over many octaves. No
# single rate fits all gaps when steps are added; when they are factors, one does.
#
# The paper's theory (its set-up and the form of its bounds are *recalled*, so our assumption) speaks of the *error* of
# a step: the mean square, in octaves, by which stochastic rounding misses the update that was meant. Ordinary descent
# (GD) loses as much however small $\eta$ gets, because its result lies anywhere between two levels. The multiplicative
# rule (MUL) starts on a level and loses in proportion to the step. With the sign of the gradient in place of the
# gradient (signMUL) nothing is lost where $\gamma\eta$ is whole. That is *derived* here, not read: minilp has its own
# proofs and measures them:

# %%
settings = ((1024, 2.0**-4), (1024, 2.0**-6), (1024, 2.0**-8))
print(lns_theory.table(lns_theory.update_errors(settings, draws=20 if lab.fast() else 200)))

# %% [markdown]
# ## Madam loses updates too
#
# Madam's step is the same for all weights, and it can be too small for all of them. At 10 bits with $\eta = 1/128$,
# $g^* = 1$ is a quarter of a level. Take $g^*$ to be normally distributed with variance 1. **To nearest, how many
# percent of the weights does such a step move?**

# %%
my_guess = None

# %%
print(" bits  levels for g* = 1   moved to nearest, percent   drawn, mean step (wanted: as column 2)")
ones = np.ones(200_000)
for bits in (16, 14, 12, 11, 10):
    units = lns_update(bits).format.gamma / 128
    alive = 100 * (1 - math.erf(0.5 / units / math.sqrt(2)))
    drawn = np.floor(units * ones + rng.random(len(ones))).mean()
    print(f"{bits:5}  {units:17.2f}  {alive:26.1f}  {drawn:22.3f}")
lab.guess(my_guess, alive, "%")

# %% [markdown]
# Two ways out: a larger $\eta$ (from scratch one wants that anyway), or stochastic rounding, whose mean is right. For
# weights that live as codes minilp offers both (`rounding="stochastic"`).
#
# ## The experiment: weights that are integers
#
# First from scratch, with large steps. Madam with float32 weights, then with
# integers of 16 and of 10 bits, and SGD with 10 bits; all to nearest. **By how many points of test accuracy will
# Madam's 10-bit integers be behind Madam's float32 weights?** (Some seconds a row.)

# %%
my_guess = None

# %%
scratch = {}
for label, bits, optimizer, options in (
        ("Madam, float32 weights", None, optim.Madam, {"lr": 1 / 8, "p_scale": 8, "round_gradient": False}),
        ("Madam, 16-bit integers", 16, optim.Madam, {"lr": 1 / 8, "p_scale": 8}),
        ("Madam, 10-bit integers", 10, optim.Madam, {"lr": 1 / 8, "p_scale": 8}),
        ("SGD, 10-bit integers", 10, optim.SGD, {"lr": 0.8})):
    model, losses, moved = fit(recipe(bits), optimizer, EPOCHS, **options)
    scratch[label] = losses, accuracy(model), model
    print(f"{label}: test {scratch[label][1]:.1f} %, loss {np.mean(losses[-8:]):.2f}, "
          f"a step moved {100 * np.mean(moved):.0f} % of the weights")
reference, narrow = scratch["Madam, float32 weights"], scratch["Madam, 10-bit integers"]
lab.guess(my_guess, round(reference[1] - narrow[1], 1), "points")

# %%
def smooth(losses: list[float]) -> np.ndarray:
    """Means over eight steps."""
    return np.array(losses[:len(losses) // 8 * 8]).reshape(-1, 8).mean(1)


steps = 8 * np.arange(1, len(smooth(reference[0])) + 1)
lab.lines({label: ("fp32" if "float32" in label else "lns", steps, smooth(run[0]))
           for label, run in scratch.items() if "16" not in label}, "training step",
          "training loss (shapes10)", "Integers of 10 bits learn as float32 weights do.", markers=False)

# %%
assert min(percent for _, percent, _ in scratch.values()) > max(30, reference[1] - 20)
param = narrow[2].conv2.weight
codes = param.code.codes
print(f"conv2.weight: codes {codes.dtype} from {codes.min()} to {codes.max()}, {param.code.format}, "
      f"one scale {param.code.scales[0].item():.4f}")
assert all(p.code is not None for p in narrow[2].parameters())

# %% [markdown]
# From scratch SGD does well with 10 bits too: its steps are large beside the gap, and what stays on its level in one
# step is moved by another. The authors' figure shows a large difference in fine-tuning BERT (*verified*); that it is
# because steps are *small* there is our reading. So take the trained network from above as the start and go on with
# small steps. Each row is trained with float32 weights and with 10 bits. What counts is how far the loss comes down,
# and how many weights move at all.

# %%
tuned, before = {}, float(np.mean(fit(recipe(None), optim.SGD, 1, start, lr=0.0)[1]))
for label, rounding, optimizer, lr in (
        ("SGD, rate 0.02, to nearest", "nearest", optim.SGD, 0.02),
        ("Madam, 1/32, to nearest", "nearest", optim.Madam, 1 / 32),
        ("Madam, 1/128, to nearest", "nearest", optim.Madam, 1 / 128),
        ("Madam, 1/128, stochastic", "stochastic", optim.Madam, 1 / 128)):
    options = {"lr": lr, **({"p_scale": 8} if optimizer is optim.Madam else {})}
    _, integers, moved = fit(recipe(10, rounding), optimizer, TUNING, start, **options)
    free = {"round_gradient": False} if optimizer is optim.Madam else {}
    _, floats, _ = fit(recipe(None), optimizer, TUNING, start, **options, **free)
    last = -len(floats) // TUNING
    wanted, got = (before - float(np.mean(run[last:])) for run in (floats, integers))
    tuned[label] = 100 * float(np.mean(moved)), got / wanted
    print(f"{label:26} loss down by {wanted:.3f} (float32), {got:.3f} (10 bits); "
          f"a step moves {tuned[label][0]:.1f} %")

# %%
survivor, lost = tuned["Madam, 1/32, to nearest"], tuned["Madam, 1/128, to nearest"]
drawn, sgd = tuned["Madam, 1/128, stochastic"], tuned["SGD, rate 0.02, to nearest"]
assert survivor[0] > max(15, 3 * sgd[0]), "one level a step moves many weights, SGD's small steps few"
assert survivor[1] > 0.6 and drawn[1] > 0.6, "what Madam learns survives at one level a step, or drawn"
assert lost[1] < 0.5, "a quarter of a level, to nearest, is lost"

# %% [markdown]
# Read it line by line. SGD's small steps move few of the weights (the small ones, as above). Madam with a level a step
# keeps what it learns. Madam with a quarter of a level loses it when rounding to nearest, and keeps it when rounding is
# drawn: the multiplicative rule does not make steps survive by itself, it makes *one* condition, $\eta\gamma_U$ not far
# below 1, decide for all weights at once.
#
# The contractions in these trainings multiplied decoded values in float32, which is faster on a CPU
# (`path="float"`, the default; minilp says so in a training's first line). The bins give the same up to float32's own
# rounding of sums:

# %%
x, _ = next(data.Loader(test_set, 32, False).epoch(0))
narrow[2].eval()
outputs = {}
for path in ("float", "bins"):
    dataclasses.replace(presets.lns_madam(path=path), update=lns_update(10)).apply(narrow[2])
    with minilp.no_grad():
        outputs[path] = narrow[2](minilp.Tensor(x)).data
gap = np.abs(outputs["float"] - outputs["bins"]).max() / np.abs(outputs["bins"]).max()
print(f"logits by bins and by float32 differ by {gap:.1e} of the largest")
assert 0 < gap < 1e-2

# %% [markdown]
# ## Break it
#
# *A narrow accumulator.* The paper's hardware adds in 24 bits (*recalled*), although one product alone spans 32 places.
# In our model of it the exact sum of 32 products loses its lower bits by a right shift and is added with saturation.
# Shift too little and sums saturate; too much, and small products are gone:

# %%
a, b = (fmt.encode(rng.standard_normal((64, 288)).astype(np.float32)).codes for _ in range(2))
exact = lns_bins.lns_contract("linear", a, b, gamma_a=8, gamma_b=8, scale=1.0).astype(float)
off = {}
for shift in (2, 8, 14, 20, 26):
    sums, saturated = lns_bins.lns_contract("linear", a, b, gamma_a=8, gamma_b=8, scale=1.0,
                                            accumulator=24, accumulator_shift=shift, return_overflows=True)
    off[shift] = float(np.sqrt(np.mean((sums - exact) ** 2) / np.mean(exact**2)))
    print(f"shift {shift:2}: {saturated:6} additions saturated of {exact.size * 9}, "
          f"error {100 * off[shift]:7.3f} % of a typical sum")
assert off[14] < 0.01 < min(off[2], off[26])

# %% [markdown]
# *A weight on the wrong side of zero.* A factor $2^x$ is positive: a sign never changes, and a zero stays zero. Here
# every weight wants to be $+0.1$; two of them start below zero, and one at zero.

# %%
want, param = np.float32(0.1), minilp.nn.Parameter(np.float32([0.05, -0.05, 0.0, 0.2, -0.2, 0.02]))
param.live_as(lns_update(16).format)
madam = optim.Madam([param], lr=1 / 32, p_scale=8)
for _ in range(600):
    param.grad = param.data - want
    madam.step()
print("from 0.05, -0.05, 0, 0.2, -0.2, 0.02 to", ", ".join(f"{value:.5f}" for value in param.data))
print("levels", param.code.codes, "- 1 is the smallest")
assert (np.sign(param.data) == [1, -1, 0, 1, -1, 1]).all() and param.code.codes[1] == -1

# %% [markdown]
# The negative ones walk down to the smallest level, as near to zero as the format goes, and end there. A network copes:
# enough weights start on either side. But a tensor that starts at zero throughout, such as a bias, could never learn;
# so `Madam` redraws it from $N(0, 0.2^2)$ by default (`init_zeros`), as the code of the authors of the original
# Madam does (*verified*).
#
# ## Differences from the paper
#
# Tags: *verified*: read in the source. *recalled*: from memory, not confirmed. *derived*: computed here or forced by
# what is verified. *default*: our choice where nothing is known.
#
# | what | the source | here | tag | effect |
# |---|---|---|---|---|
# | products, bins, one constant a remainder | NVIDIA's patents on the datapath | the same, in 64-bit bins | verified | exact sums in any order |
# | hybrid conversion | sort by the upper bits of the remainder, add the lower ones (patents); the formula | $2^{r_M/\gamma}(1 + r_L/\gamma)$ | verified; recalled | errors above |
# | where the approximation is used | in training; forward only or in all passes is unknown | in every contraction whose first operand's format says so | default | `minilp train --set lns.path=bins --set lns.convert=hybrid --set lns.lut=1` |
# | energy by table size | 12.29 to 19.02 fJ an operation | quoted, not used | recalled | |
# | accumulator | 24 bits; how the sums are cut is unknown | exact; `accumulator=24` is our model | recalled; default | above |
# | update rule | $W \cdot 2^{-\eta g^* \mathrm{sign} W}$, $\beta = 0.999$, bias correction, bound 10 on $g^*$, $\eta = 1/128$ (released code) | the same | verified | |
# | rounding of $g^*$ | to an integer (released code, float32 weights) | for codes the exponent step is rounded instead | verified; default | the same where $\eta\gamma_U = 1$ |
# | bound on weights | 3 root mean squares (released code) | 3 by default; 8 in this lesson's trainings | verified; default | how far a weight can grow |
# | weights as integers | the released code keeps float32; $k \leftarrow k - R(\cdot)$ | integers, no float copy | recalled | |
# | stored bits | 16 to 10 in the authors' figure; 16 as the main setting | 16 by default | verified; recalled | |
# | $\gamma_U = \gamma \cdot 2^{B_U - B}$, one scale a tensor | not read | the same octaves; one scale for each tensor | recalled; default | the forward weight is a shift |
# | rounding of updates | not read | to nearest; `stochastic` by choice | default | decides at 10 bits |
# | operands | 8 bits (abstract), $\gamma = 8$ | the same | verified; recalled | |
# | first and last layer | dimly recalled as full precision | float32 | default | |
# | Madam against others at 10 bits | far ahead in fine-tuning BERT, nearly even on CIFAR-10 (authors' figure) | small networks: even from scratch, apart for small steps | verified; measured | |
#
# ## Summary
#
# 1. Logarithmic numbers multiply by adding exponents; a sum of products is one integer for each remainder.
# 2. Constants come in once a sum; a table with fewer of them errs upwards, mostly by a common factor.
# 3. On a logarithmic lattice gaps grow with the weight, so added steps vanish on large weights first.
# 4. Madam's steps are factors: one condition, $\eta\gamma_U$ not far below 1 or a drawn rounding, serves all weights.
# 5. A weight can be an integer for good: its update is an integer addition, its forward value a rounding shift.
#
# ## Questions
#
# 1. *(code)* Train with `presets.lns_madam(path="bins", convert="hybrid", lut=1)` for an epoch. How far is the loss
#    from that of the exact table?
# 2. *(code)* Fine-tune by AdamW at 10 bits, to nearest. Its steps are normalised as Madam's are, but added. Which
#    weights move?
# 3. *(thought)* Two positive weights feed the same output, one a hundred times the other. Which of them does SGD change
#    more, in octaves? And Madam?
# 4. *(thought)* Why must the scale of a stored weight stay fixed in training, when that of an activation may follow the
#    maximum?
#
# Next: lesson 05 builds a number format of your own.
