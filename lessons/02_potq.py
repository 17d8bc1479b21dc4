# %% [markdown]
# # Lesson 02: ALS-PoTQ and MF-MAC
#
# Afterwards you can **derive** the scale that a layer's tensor gets; **multiply** two powers of two with an addition
# and an XOR, and whole matrices with that; **see** a 32-bit accumulator overflow; **switch** weight bias correction
# and ratio clipping on and off and say what each buys.
#
# The paper: Liu et al. 2023, *Ultra-low Precision Multiplication-free Training for Deep Neural Networks* (arXiv
# 2302.14458). *ALS-PoTQ* is its number format (adaptive layer-wise scaling, powers of two), *MF-MAC* its
# multiplication-free multiply-accumulate; *WBC* (weight bias correction) and *PRC* (parameterized ratio clipping) are
# steps that weights and activations go through before they are coded. We have read the paper's abstract and its table
# of unit energies, not its equations: those below are our re-implementation under stated assumptions, listed at the
# end.
#
# *You need:* lesson 01's powers of two; what a convolution and a gradient are. *Time:* 60 to 75 minutes to read and
# solve; the machine takes one to six minutes, nearly all of it in the experiment. *Code it walks through:*
# `minilp/formats/pot.py`, `minilp/transforms.py`, `minilp/kernels/reference_pot.py`.

# %%
import dis
import inspect
import math
import warnings

import numpy as np

import minilp
from minilp import contract, data, nn, optim, recipe
from minilp import lessons as lab
from minilp.formats import PoT, Spec
from minilp.formats.pot import rlog2
from minilp.kernels import reference_pot
from minilp.kernels.pot import pot_contract
from minilp.nn import functional as F
from minilp.operands import observe
from minilp.transforms import PRC, WBC, Outside

SEEDS = (0,) if lab.fast() else (0, 1, 2)  # trainings behind each number of the experiment
print(f"minilp {minilp.__version__}, numpy {np.__version__}, {len(SEEDS)} seed(s) a training")

# %% [markdown]
# ## Symbols
#
# | symbol | meaning | in code | shape |
# |---|---|---|---|
# | $W, A, G$ | a layer's weights, its input (*activations*), the gradient of its output (*errors*) | roles `weight`, `act`, `error` | (O, C), (T, C), (T, O) in a linear layer |
# | $b$ | bits of one code: a sign and $b - 1$ of exponent | `fmt.bits` | a number |
# | $e_{\max}$ | largest exponent, $2^{b-2} - 1$ | `fmt.emax` | a number |
# | $\beta$ | the tensor's scale: a code stands for $0$ or $\pm 2^{k+\beta}$ | `q.scales[0]` | one for the tensor |
# | $s, k$ | a code's sign (0 or 1) and exponent, $-e_{\max} \le k \le e_{\max}$ | `code < 0`, `abs(code) - 1 - emax` | that of the tensor |
# | $p$ | exponent of a product, $k_w + k_a$ | in `product` below | a number |
# | $\tilde W$ | weights without their mean (WBC) | `WBC().forward(w, {})[0]` | that of $W$ |
# | $M$ | largest magnitude of a tensor | `maximum` | a number |
# | $\gamma, t$ | learned ratio, and clipping threshold $t = \gamma M$ (PRC); not lesson 01's $\gamma$ | `layer.act_prc_gamma` | a number |
#
# T counts the rows of a batch, C inputs, O outputs. *MAC* is short for multiply-accumulate, $\oplus$ is XOR, and the
# *top code* is the one with $k = e_{\max}$. A *recipe* gives each role its format and the steps before it;
# `recipe.potq()` is this paper's.

# %% [markdown]
# ## One number by hand
#
# The dot product of $w = [0.9, -0.3]$ and $a = [1.2, 0.2]$, five bits, so $e_{\max} = 7$.
#
# 1. *Scales.* The largest weight has $\log_2 0.9 = -0.15$, rounded 0. It shall sit on the top code, $k = 7$, so $\beta_w = 0 - 7$.
#    Likewise $\log_2 1.2 = 0.26$ rounds to 0, and $\beta_a = -7$.
# 2. *Codes.* $0.9 \to +2^0$, so $k = 7$; $\log_2 0.3 = -1.74 \to -2$, so $k = -2 + 7 = 5$ with sign 1.
#    And $1.2 \to 2^0$, so $k = 7$; $\log_2 0.2 = -2.32 \to -2$, so $k = 5$.
# 3. *Products.* First: signs $0 \oplus 0 = 0$, exponents $7 + 7 = 14$. Second: $1 \oplus 0 = 1$, $5 + 5 = 10$.
# 4. *Sum.* The smallest possible product has $p = -14$; count in units of it. A product is then the integer
#    $\pm 2^{p+14}$: $2^{28} - 2^{24} = 251658240$.
# 5. *Scale, once.* $251658240 \cdot 2^{\beta_w + \beta_a - 14} = 251658240 \cdot 2^{-28} = 0.9375$.
#
# In real numbers it is $1.08 - 0.06 = 1.02$. Steps 3 to 5 are exact; all of the error comes from rounding in step 2.

# %%
w, a = np.array([[0.9, -0.3]], np.float32), np.array([[1.2, 0.2]], np.float32)
qw, qa = PoT(5).encode(w), PoT(5).encode(a)
print("codes", qw.codes[0], qa.codes[0], " scales", qw.scales[0][0, 0], qa.scales[0][0, 0])
print("dot product", PoT(5).contract(qa, qw, Spec("linear"))[0, 0])
print(PoT(5).explain(0.9, 1.2))

# %% [markdown]
# minilp's code is a *signed level*: 0 for zero, else $\pm(k + e_{\max} + 1)$, here 1 to 15. A magnitude less one is
# $k + e_{\max}$, the exponent counted from 0.
#
# ## The layer-wise scale
#
# *Layer-wise*: each tensor of each layer has one $\beta$. *Adaptive*: it is computed anew from the tensor itself in
# every step. A layer meets three tensors, of very different size: here is one training step of a small network, five
# bits, on `shapes10` (built-in pictures of shapes in ten classes). `observe` shows us each tensor that is encoded,
# `contract.executed` notes how each product was computed.

# %%
train, test = data.load("shapes10")
x, y = next(data.Loader(train, 64, seed=0).epoch(0))
minilp.manual_seed(0)
model = recipe.potq().apply(minilp.models.build("small_cnn", width=8))
seen = {}


def keep_conv2(layer, role, tensor, q) -> None:
    """Remember what conv2 encodes: the tensor and its codes."""
    if layer.name == "conv2":
        seen[role] = (tensor, q)


with observe(keep_conv2), contract.executed() as executed:
    F.cross_entropy(model(minilp.Tensor(x)), y).backward()
for role, (tensor, q) in seen.items():
    print(f"{role:6} largest {np.abs(tensor).max():.2e}, beta {q.scales[0].item()}, shape {tensor.shape}")

# %% [markdown]
# Where should $\beta$ go? The largest magnitude must not fall off the top, and no code should lie above it unused. The
# power nearest to $M$ is $2^{\mathrm{round}(\log_2 M)}$, so put the top code there:
#
# $$ \mathrm{round}(\log_2 M) = e_{\max} + \beta \quad\Longrightarrow\quad
#    \beta = \mathrm{round}(\log_2 M) - e_{\max} $$
#
# The scale is a power of two itself, so scaling is an integer subtraction from the exponent: no division.
#
# > **Exercise 1** (★, 3 lines). Write `layer_scale`: $\beta$ for the largest magnitude of a tensor. A tensor of zeros
# > gets 0.
# >
# > - *Hint 1:* `round(math.log2(maximum))`; $\log_2 0$ does not exist, so zero needs its own `if` first (2 lines).
# > - *Hint 2:* $e_{\max} = 2^{b-2} - 1$.


# %% exercise=1 lines=3
def layer_scale(maximum: float, bits: int) -> int:
    """The exponent beta that puts the largest magnitude on the top code."""
    ### BEGIN SOLUTION
    if maximum == 0:
        return 0
    return round(math.log2(maximum)) - (2 ** (bits - 2) - 1)
    ### END SOLUTION


# %%
def scales_of(maxima: list) -> list:
    """What minilp chooses."""
    return [((maximum, bits), int(PoT(bits).scales_for(np.array([maximum], np.float32))[0][0]))
            for maximum in maxima for bits in (3, 4, 5, 6)]


lab.check(1, layer_scale, scales_of([1.0, 1.4, 1.43, 2.9, 0.9, 0.7, 3e-9, 4096.0, 0.0]))

# %% [markdown]
# With the scale known, the codes are lesson 01's: round the exponent (`rlog2`: an add and a shift on the float32 bits),
# subtract $\beta$, limit. In NumPy, and minilp's in C:


# %%
def codes_of(x: np.ndarray, beta: int, bits: int) -> np.ndarray:
    """Signed levels of x under a scale."""
    emax = 2 ** (bits - 2) - 1
    level = np.minimum(rlog2(np.abs(x)) - beta, emax) + emax + 1
    return np.where((x == 0) | (level < 1), 0, np.sign(x) * level).astype(int)


for role, (tensor, q) in seen.items():
    beta = layer_scale(float(np.abs(q.decode()).max()), 5)  # the largest value is a power: beta comes back
    assert lab.same(f"{role:6} NumPy and minilp", codes_of(tensor, beta, 5), q.codes)

# %% [markdown]
# All three tensors, each under its own scale. The horizontal axis is $k$, and only $-7$ to 7 have a code. What lies to
# the left becomes zero. What lies to the right is clipped, which PRC may do to activations (below).

# %%
k_axis = np.arange(-16, 9)
shares = {}
for role, (tensor, q) in seen.items():
    exponents = rlog2(np.abs(tensor[tensor != 0])) - q.scales[0].item()
    share = [100 * np.mean(exponents == k) for k in k_axis]
    shares[f"{role} (beta {q.scales[0].item()})"] = ("pot", k_axis, share)
lab.lines(shares, "exponent k under the tensor's own scale; codes reach from -7 to 7",
          "percent of the elements that are not 0",
          "Each tensor ends at the top code; the errors reach furthest down.")

# %% [markdown]
# Why *round*, not the next power below (floor) or above (ceil)? Take many tensors whose largest magnitudes are spread
# evenly in the logarithm. **With floor, in how many of 100 tensors does the maximum, rounded in the logarithm like
# every element, want a power above the top code, so that it is clipped?**

# %%
my_guess = None

# %%
maxima = np.exp2(np.random.default_rng(1).uniform(-10, 10, 20_000)).astype(np.float32)
above = rlog2(maxima) - np.floor(np.log2(maxima))  # 1: the maximum's own power lies above the top code
unused = np.ceil(np.log2(maxima)) - rlog2(maxima)  # 1: nothing is rounded to the top code
print(f"floor clips the maximum in {100 * above.mean():.1f} of 100 tensors; "
      f"ceil leaves the top code empty in {100 * unused.mean():.1f}; round does neither")
lab.guess(my_guess, round(100 * float(above.mean()), 1))
assert abs(above.mean() - 0.5) < 0.02 and abs(unused.mean() - 0.5) < 0.02

# %% [markdown]
# ## A multiplication with an add and an XOR
#
# $$ (-1)^{s_w} 2^{k_w} \cdot (-1)^{s_a} 2^{k_a} = (-1)^{s_w \oplus s_a}\, 2^{k_w + k_a} $$
#
# The abstract promises "INT4 additions and 1-bit XOR" (verified): $k$ in $-7..7$ is an INT4, which makes $b = 5$
# (derived). The sum has five bits, $-14..14$. Zero has no exponent and needs a *gate*: if an operand is zero, the
# product is zero, whatever the adder says.
#
# > **Exercise 2** (★★, 5 lines). Write `product` for two codes: the integer $\pm 2^{p + 2 e_{\max}}$, or 0. No `*`,
# > no `**`.
# >
# > - *Hint 1:* a code's magnitude less one is $k + e_{\max}$. So the shift is `abs(w) - 1 + abs(a) - 1`, for any number
# > of bits.
# > - *Hint 2:* the XOR of two signed integers is negative where exactly one of them is: `(w ^ a) < 0`.
# > - *Hint 3:* `1 << shift` is $2^{\text{shift}}$.


# %% exercise=2 lines=5
def product(w: int, a: int) -> int:
    """The product of two codes, in units of the smallest product."""
    ### BEGIN SOLUTION
    if w == 0 or a == 0:
        return 0
    shift = abs(w) - 1 + abs(a) - 1
    return -(1 << shift) if (w ^ a) < 0 else 1 << shift
    ### END SOLUTION


# %%
def multiplications(function) -> int:
    """How often a function's bytecode multiplies or raises to a power."""
    return sum(step.opname in ("BINARY_MULTIPLY", "BINARY_POWER") or step.argrepr in ("*", "**")
               for step in dis.get_instructions(function))


levels = reference_pot.values(PoT(5).codes(), np.int64)  # the integer that each code stands for
pairs = list(zip(PoT(5).codes().tolist(), levels.tolist(), strict=True))
lab.check(2, product, [((w, a), u * v) for w, u in pairs for a, v in pairs])
lab.check(2, multiplications, [((product,), 0)])

# %% [markdown]
# The first check ran over all $31 \times 31$ pairs, the second looked at what Python made of your function.
#
# A dot product adds such integers up. Nothing is rounded on the way: a product is never smaller than 1 unit, and shifts
# go to the left only. At the end, once for the whole sum, both scales are put on:
#
# $$ y = \Big(\sum_i \pm 2^{\,p_i + 2e_{\max}}\Big) \cdot 2^{\,\beta_w + \beta_a - 2e_{\max}} $$
#
# > **Exercise 3** (★★, 3 lines). Write `dot`: the real number that two lists of codes and their scales give.
# >
# > - *Hint 1:* `sum(product(w, a) for w, a in zip(ws, as_))` is the accumulator.
# > - *Hint 2:* `math.ldexp(total, e)` is `total` times $2^e$: it adds to the float's exponent field.


# %% exercise=3 lines=3
def dot(ws: list, as_: list, beta_w: int, beta_a: int, bits: int) -> float:
    """Sum of products of codes, scaled once."""
    ### BEGIN SOLUTION
    emax = 2 ** (bits - 2) - 1
    total = sum(product(w, a) for w, a in zip(ws, as_, strict=True))
    return math.ldexp(total, beta_w + beta_a - 2 * emax)
    ### END SOLUTION


# %%
lab.check(3, dot, [
    (([15, -13], [15, 13], -7, -7, 5), 0.9375), (([0, 15], [15, 0], 3, 3, 5), 0.0),
    (([1], [1], 0, 0, 5), 2.0**-14),
    (([7, 7, -6], [7, 7, 7], 2, -1, 4), 192.0), (([3, 1], [-2, 3], 0, 5, 3), -32.0)])

# %% [markdown]
# Now the same as a whole layer: $Y = A W^T$, 8 rows, 12 outputs, 300 inputs. First your loop; then a float64 matrix
# product of the decoded values, which is exact for sums of this size; then minilp.

# %%
rng = np.random.default_rng(0)
a = np.maximum(rng.standard_normal((8, 300)), 0).astype(np.float32)
w = (0.05 * rng.standard_normal((12, 300))).astype(np.float32)
qa, qw = PoT(5).encode(a), PoT(5).encode(w)
betas = int(qw.scales[0].item()), int(qa.scales[0].item())
loop = np.array([[dot(row_w, row_a, *betas, 5) for row_w in qw.codes.tolist()]
                 for row_a in qa.codes.tolist()])
floats = qa.decode().astype(float) @ qw.decode().astype(float).T
y = PoT(5).contract(qa, qw, Spec("linear"))
assert lab.same("your loop and float64", loop, floats)
assert lab.same("float64, rounded once to float32, and minilp", floats.astype(np.float32), y)
with minilp.use_backend("numpy"):
    twin = PoT(5).contract(qa, qw, Spec("linear"))
assert lab.same(f"minilp's backends, numpy and {minilp.backend().name}", twin, y)
for family in ("shift", "emulate"):
    with minilp.use_kernels(family), contract.executed() as how:
        assert lab.same(f"kernels {family!r}", contract.multiply(qa, qw, Spec("linear")), y)
    print("   ", *how)

# %% [markdown]
# minilp has two families of kernels for this: `shift` adds and shifts as you did, without a multiply instruction;
# `emulate` lets the CPU's integer multipliers find the same integers. Lesson 06 looks inside both.
#
# A layer needs three such products, and all three meet powers of two: forward $A$ with $W$; backward, $G$ with $W$ for
# the gradient of the input, and $G$ with $A$ for that of the weights. In the training step above:

# %%
for how, times in sorted(executed.items()):
    print(f"{times} x {how}")
assert all("in integers" in how for how in executed)

# %% [markdown]
# The images need no gradient, so the first layer has only two. The result of each product is float32, and so are
# batch norm, the loss, the weights between steps and their updates (recalled: the claim is about the linear layers).
#
# ## The accumulator overflows
#
# At five bits a product is at most $2^{28}$, and the paper's table prices an INT32 adder (verified), so it adds in 32
# bits (recalled). Add up products of equal sign, each of them $2^{28}$: **how many of them until the sum no longer
# fits into INT32?**

# %%
my_guess = None

# %%
total, terms = 0, 0
while total <= 2**31 - 1:
    total, terms = total + product(15, 15), terms + 1
    print(f"{terms} products: {total:11d}, as INT32 {int(np.int64(total).astype(np.int32)):11d}")
lab.guess(my_guess, terms)

# %% [markdown]
# Two's complement wraps around: what is above $2^{31} - 1$ comes back at $-2^{31}$, without a sign that anything
# happened. So minilp's model of that accumulator counts.
#
# > **Exercise 4** (★★, 3 lines). Write `int32_add`: the wrapped sum, and whether it overflowed.
# >
# > - *Hint 1:* Python's integers do not wrap, so the exact sum is easy: compare with it.
# > - *Hint 2:* add $2^{31}$, take the remainder by $2^{32}$, subtract $2^{31}$: that maps any integer into the range
# > and leaves those inside alone.


# %% exercise=4 lines=3
def int32_add(accumulator: int, term: int) -> tuple:
    """(the sum in two's complement, whether the true sum did not fit)."""
    ### BEGIN SOLUTION
    exact = accumulator + term
    wrapped = (exact + 2**31) % 2**32 - 2**31
    return wrapped, wrapped != exact
    ### END SOLUTION


# %%
top = 2**31 - 1
lab.check(4, int32_add, [
    ((0, 2**28), (2**28, False)), ((top, 0), (top, False)), ((top, 1), (-top - 1, True)),
    ((-top - 1, -1), (top, True)), ((-top - 1, 1), (-top, False)), ((7 * 2**28, 2**28), (-top - 1, True)),
    ((-5, 3), (-2, False)), ((-top, -1), (-top - 1, False)), ((2**30, 2**30), (-top - 1, True))])

# %%
codes_a = rng.integers(9, 16, (1, 1000)).astype(np.int8)
codes_w = (rng.integers(9, 16, (1, 1000)) * rng.choice([1, 1, 1, -1], (1, 1000))).astype(np.int8)
total, overflows = 0, 0
for code_w, code_a in zip(codes_w[0].tolist(), codes_a[0].tolist(), strict=True):
    total, over = int32_add(total, product(code_w, code_a))
    overflows += over
model_sum, counted = pot_contract("linear", codes_a, codes_w, bits_a=5, bits_b=5, exponent=0, out="int64",
                                  accumulate="int32", return_overflows=True)
exact = pot_contract("linear", codes_a, codes_w, bits_a=5, bits_b=5, exponent=0, out="int64")
assert lab.same("your sums and minilp's model of INT32", [total, overflows], [model_sum.item(), counted])
print(f"{overflows} overflows in 1000 additions: {total} in place of {exact.item()}")

# %% [markdown]
# Does it happen in a layer? Rectified normal activations, normal weights, sums of length $K$:

# %%
LENGTHS = (64, 256, 1024, 4096, 16384, 65536)


def share_wrong(bits: int, length: int) -> float:
    """Percent of the outputs that come out of an INT32 accumulator wrong, over six layers."""
    shares = []
    for _ in range(6):
        a = PoT(bits).encode(np.maximum(rng.standard_normal((8, length), dtype=np.float32), 0)).codes
        w = PoT(bits).encode(rng.standard_normal((24, length), dtype=np.float32)).codes
        exact, narrow = (pot_contract("linear", a, w, bits_a=bits, bits_b=bits, exponent=0, out="int64",
                                      accumulate=accumulate) for accumulate in ("int64", "int32"))
        shares.append(100 * float(np.mean(narrow != exact)))
    return float(np.mean(shares))


wrong = {bits: [share_wrong(bits, length) for length in LENGTHS] for bits in (4, 5)}
print({bits: [round(share, 2) for share in shares] for bits, shares in wrong.items()})
assert max(wrong[5][:3]) == 0 and wrong[5][-1] > 10 and max(wrong[4]) == 0
lab.lines({"5 bits x 5 bits": ("pot", LENGTHS, wrong[5]), "4 bits x 4 bits": ("pot", LENGTHS, wrong[4])},
          "length K of the sum", "percent of the outputs wrong",
          "Five bits overflow INT32 in long sums; four bits do not.", logx=True)

# %% [markdown]
# A 3 x 3 convolution with 128 input channels sums $K = 1152$ products: safe here, not proven safe. A weight gradient
# sums over all positions of all images and is far longer. minilp therefore adds in int64 unless you ask for INT32; a
# sum that int64 might not hold (six bits on both sides) is kept as one count for each exponent instead, of how many
# products have it. If you ask for INT32, it tells you:

# %%
narrow = PoT(5, accumulate="int32")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    ones = narrow.encode(np.ones((1, 40), np.float32))
    print("40 products of 1 with 1, in place of 40:", narrow.contract(ones, ones, Spec("linear"))[0, 0])
print("warned:", caught[0].message)
assert "overflowed" in str(caught[0].message)

# %% [markdown]
# ## Weight bias correction
#
# Powers of two are fine near zero and coarse far from it. So it matters where a tensor's zero is. Take 10 000 weights
# with mean 1 and standard deviation 0.03. **How many of the 31 codes do they use?**

# %%
my_guess = None

# %%
w = (1 + 0.03 * rng.standard_normal(10_000)).astype(np.float32)
centred, _, _ = WBC().forward(w, {})
used = {name: len(np.unique(PoT(5).encode(tensor).codes))
        for name, tensor in (("without", w), ("with", centred))}
print(f"codes in use without WBC: {used['without']}, with WBC: {used['with']}")
lab.guess(my_guess, used["without"])

# %% [markdown]
# WBC subtracts the mean of the layer's weights before they are coded (recalled), and does not add it back (default).
# That it adds no multiplication is the abstract's claim (verified). minilp's code, and then the rounding error for
# weights of ever larger mean:

# %%
print(inspect.getsource(WBC.forward))
ratios = np.exp2(np.arange(-4, 6.0))


def rounding_error(ratio: float, step: WBC | None) -> float:
    """Root mean square rounding error of weights with standard deviation 1, in percent of it."""
    squares = []
    for mean in ratio * np.exp2(np.arange(8) / 8):  # eight layers, their means spread over an octave
        w = (mean + np.random.default_rng(2).standard_normal(5000)).astype(np.float32)
        w = step.forward(w, {})[0] if step else w
        squares.append(np.mean((PoT(5).encode(w).decode().astype(float) - w) ** 2))
    return 100 * float(np.sqrt(np.mean(squares)))


error = {name: [rounding_error(ratio, step) for ratio in ratios]
         for name, step in (("with", WBC()), ("without", None))}
assert error["without"][-1] > 20 * error["with"][-1]
lab.lines({"with WBC": ("pot", ratios, error["with"]), "without WBC": ("pot", ratios, error["without"])},
          "mean of the weights / standard deviation (lower end of an octave)",
          "rounding error, % of the std. deviation",
          "Without WBC the rounding error grows with the mean.", logx=True, logy=True)

# %% [markdown]
# ## Parameterized ratio clipping
#
# PRC clips activations at $t = \gamma M$, with a $\gamma \le 1$ that each layer learns. The window of codes moves down
# with the threshold: $\beta = \mathrm{round}(\log_2 \gamma M) - e_{\max}$. So each octave lost at the top is one
# gained at the bottom. **One tensor is coded with 106 values of $\gamma$ from 1/8 to 1. How many of the results
# differ?** (106 if every step of $\gamma$ changes some code, 1 if none does.)

# %%
my_guess = None

# %%
x = np.maximum(np.random.default_rng(3).standard_normal(50_000), 0).astype(np.float32)
gammas = np.linspace(1 / 8, 1, 106)
codings = [PoT(5).encode_clipped(x, gamma * float(x.max()))[0].codes.tobytes() for gamma in gammas]
print(f"{len(codings)} gammas, {len(set(codings))} different results")
lab.guess(my_guess, len(set(codings)))

# %% [markdown]
# Forward, $\gamma$ counts only through $\mathrm{round}(\log_2 \gamma M)$: what is clipped to $t$ gets the top code, and
# so does all that rounds to it or above. What does the move buy? The error of rectified normal numbers; the curves of
# four and of five bits lie on one another:


# %%
def clipping_error(bits: int, gamma: float) -> float:
    """Root mean square error of the coded activations, in percent of their root mean square."""
    decoded = PoT(bits).encode_clipped(x, gamma * float(x.max()))[0].decode().astype(float)
    return 100 * float(np.sqrt(np.mean((decoded - x) ** 2) / np.mean(x.astype(float) ** 2)))


clipped = {bits: [clipping_error(bits, gamma) for gamma in gammas] for bits in (3, 4, 5)}
for bits, errors in clipped.items():
    print(f"{bits} bits: error {errors[-1]:.1f} % at gamma 1, at best {min(errors):.1f} %")
assert min(clipped[3]) < 0.8 * clipped[3][-1] and min(clipped[5]) > 0.98 * clipped[5][-1]
assert np.allclose(clipped[4], clipped[5], rtol=0.02)
lab.lines({f"{bits} bits": ("pot", gammas, errors) for bits, errors in clipped.items()},
          "gamma", "error, percent of the activations", markers=False,
          caption="At three bits clipping helps much, at five nothing: their window is wide enough.")

# %% [markdown]
# How does $\gamma$ learn? Clipping, $\tilde x = \mathrm{clip}(x, -t, t)$ with $t = \gamma M$, is differentiated as it
# stands, and rounding is treated as the identity (*straight through*); $M$ counts as a constant. With $g$, the gradient
# of the clipped and coded tensor:
#
# $$ \frac{\partial L}{\partial x} = \begin{cases} g & |x| \le t \\ 0 & |x| > t \end{cases} \qquad
#    \frac{\partial L}{\partial \gamma} = M \sum_{|x| > t} g \cdot \mathrm{sign}(x) $$
#
# > **Exercise 5** (★★★, 4 lines). Write `prc_backward`: both, as a tuple (array, float).
# >
# > - *Hint 1:* $M$ is `np.abs(x).max()`; `outside = np.abs(x) > gamma * maximum` is a mask.
# > - *Hint 2:* `np.where(outside, 0, grad)` is the first.
# > - *Hint 3:* the sum runs over the elements outside: the mask picks them from both factors, `grad[outside]` and
# > `x[outside]`.


# %% exercise=5 lines=4
def prc_backward(x: np.ndarray, grad: np.ndarray, gamma: float) -> tuple:
    """(gradient of x, gradient of gamma)."""
    ### BEGIN SOLUTION
    maximum = float(np.abs(x).max())
    outside = np.abs(x) > gamma * maximum
    slope = maximum * float(np.sum(grad[outside] * np.sign(x[outside])))
    return np.where(outside, 0, grad), slope
    ### END SOLUTION


# %%
def prc_cases() -> list:
    """Small integers, so that every sum is exact; minilp's own transform says what is expected."""
    cases, draw = [], np.random.default_rng(4)
    for gamma in (0.25, 0.5, 0.75, 1.0):
        x, grad = (draw.integers(-8, 9, (2, 3)).astype(np.float32) for _ in range(2))
        x[0, 0], x[1, 1] = 8, -8 * gamma  # the maximum, and a number that lies on the threshold
        _, limit, saved = PRC().forward(x, {"gamma": gamma})
        _, positions = PoT(5).encode_clipped(x, limit)
        gradient, learned = PRC().backward(grad.copy(), saved, Outside.of(x, positions))
        cases.append(((x, grad, gamma), (gradient, learned["gamma"])))
    return cases


lab.check(5, prc_backward, prc_cases())

# %% [markdown]
# ## The experiment: what does each buy?
#
# A small CNN (three convolutions of 8, 16 and 32 channels and a linear layer) on 2000 images of `shapes10`, four
# epochs, the same seeds for every variant. A training is short with the C core, and takes much
# longer without it. *Shifted* networks start with half a standard deviation added to all weights of their convolutions,
# so that these have a mean.

# %%
IMAGES, EPOCHS, BATCH = 2000, 4, 64
part = train.subset(IMAGES)


def training(variant: minilp.Recipe, seed: int, shift: float = 0.0) -> tuple:
    """Train; returned: loss of each epoch, accuracy on test images in percent, learned gammas."""
    minilp.manual_seed(seed)
    model = minilp.models.build("small_cnn", width=8)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data += np.float32(shift * module.weight.data.std())
    variant.apply(model)
    loader, losses = data.Loader(part, BATCH, seed=seed), []
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = optim.OneCycleLR(optimizer, 0.1, total_steps=EPOCHS * len(loader))
    for epoch in range(EPOCHS):
        losses.append(0.0)
        for x, y in loader.epoch(epoch):
            loss = F.cross_entropy(model(minilp.Tensor(x)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses[-1] += loss.item() / len(loader)
    model.eval()
    with minilp.no_grad():
        batches = data.Loader(test.subset(1000), 250, shuffle=False).epoch(0)
        right = sum(int((model(minilp.Tensor(x)).data.argmax(1) == y).sum()) for x, y in batches)
    gammas = [round(float(p.data), 2) for name, p in model.named_parameters() if "prc" in name]
    return losses, right / 10, gammas


def several(name: str, variant: minilp.Recipe, shift: float = 0.0) -> dict:
    """The same variant with every seed: a printed line, and the means."""
    runs = [training(variant, seed, shift) for seed in SEEDS]
    losses, accuracies = np.array([run[0] for run in runs]), [run[1] for run in runs]
    print(f"{name}: loss {losses[:, -1].mean():.3f}, right {np.mean(accuracies):.1f} % "
          f"({', '.join(f'{value:.1f}' for value in accuracies)})" + ("\n    gammas " if runs[0][2] else "")
          + ", ".join(map(str, runs[0][2])))
    return {"losses": losses.mean(axis=0), "right": np.mean(accuracies), "seeds": np.array(accuracies)}


both = recipe.potq()
no_wbc, no_prc = both.set("weight.before", "none"), both.set("act.before", "none")
shifted = {"float32, shifted": several("float32, shifted", recipe.fp32(), 0.5),
           "potq, shifted": several("potq (WBC and PRC), shifted", both, 0.5),
           "potq without WBC, shifted": several("potq without WBC, shifted", no_wbc, 0.5)}

# %%
epochs = range(1, EPOCHS + 1)
styles = ("fp32", "pot", "pot")
curves = {name: (style, epochs, run["losses"])
          for (name, run), style in zip(shifted.items(), styles, strict=True)}
lab.lines(curves, "epoch (shapes10)", "mean loss over the epoch",
          "Only with WBC does a network learn whose weights start with a mean.")

# %%
assert shifted["potq, shifted"]["losses"][-1] < 0.95 * shifted["potq without WBC, shifted"]["losses"][-1]
assert shifted["potq, shifted"]["right"] > shifted["potq without WBC, shifted"]["right"] + 8
assert shifted["float32, shifted"]["right"] < 20

# %% [markdown]
# Without WBC the network guesses: ten classes, one in ten right. It is *not* the rounding: float32 does no better. All
# outputs of a layer share the part (mean of $W$) $\cdot$ (sum of the inputs), which drowns what distinguishes them. WBC
# takes that part away. Does it help a network that starts without a mean? And PRC? (`FAST=1` leaves these trainings
# and the next ones out; their outputs are in `solutions/`.)

# %%
if not lab.fast():
    plain = several("float32", recipe.fp32())
    grid = {"WBC and PRC": several("potq, WBC and PRC", both), "no WBC": several("potq without WBC", no_wbc),
            "no PRC": several("potq without PRC", no_prc),
            "neither": several("potq with neither", no_wbc.set("act.before", "none"))}
    seeds = {name: run["seeds"] for name, run in grid.items()}
    wbc = np.append(seeds["WBC and PRC"] - seeds["no WBC"], seeds["no PRC"] - seeds["neither"])
    prc = np.append(seeds["WBC and PRC"] - seeds["no PRC"], seeds["no WBC"] - seeds["neither"])
    for name, gain in (("WBC", wbc), ("PRC", prc)):
        print(f"{name}, same seed and all else equal: {gain.mean():+.1f} points on average; "
              f"single pairs {', '.join(f'{value:+.1f}' for value in gain)}")
    assert min(run["right"] for run in grid.values()) > 20

# %% [markdown]
# Compare the single pairs before you call an average a gain: if they scatter by more than it, it is none. A network
# whose weights start around zero does not need WBC to get going; what it is worth in a long training, this cannot tell.
# And of PRC the figure above said that at five bits there is nothing to gain. So give the activations three bits
# (weights and errors keep five), and start $\gamma$ where the figure says that clipping helps:

# %%
if not lab.fast():
    three = both.set("act.bits", 3)
    low = {"none": several("3-bit activations, no PRC", three.set("act.before", "none")),
           "0.9": several("3-bit activations, gamma from 0.9", three),
           "0.5": several("3-bit activations, gamma from 0.5", three.set("act.prc.init", 0.5))}
    assert low["0.5"]["losses"][-1] < low["none"]["losses"][-1] - 0.02

# %% [markdown]
# The loss falls, as the figure promised. It is the loss that the assertion compares, not the accuracy: with three
# bits, what a test image's codes are depends on the largest magnitude in its batch, and single accuracies scatter
# so widely that three seeds cannot tell whether the accuracy gains too.
#
# The gammas printed are those of `conv1`, `conv2`, `conv3` and `fc`, of the first seed. That of `conv1` stays where it
# began: the images need no gradient, so the product that $g$ would come from is never computed.
#
# ## Break it
#
# *Zero without a gate.* Let zero be the exponent that is left over, $k = -8$, and trust the adder. Then zero times
# the largest weight is not zero but $2^{-8+7}$, which is a legal product. Rectified activations are zero half of the
# time. The samples of a batch share one scale; here each is half as loud as the one before it:

# %%
def ungated(w: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Products of five-bit codes where zero is read as +2^-8: a sum per row of a and w, float64."""
    values = [np.where(codes == 0, 2.0**-8, np.sign(codes) * 2.0 ** (np.abs(codes) - 8)) for codes in (a, w)]
    return values[0] @ values[1].T


loudness = np.exp2(-np.arange(11, dtype=np.float32))[:, None]
a = loudness * np.maximum(rng.standard_normal((11, 1152), dtype=np.float32), 0)
w = np.abs(rng.standard_normal((16, 1152), dtype=np.float32))
codes_a, codes_w = PoT(5).encode(a).codes, PoT(5).encode(w).codes
gated = pot_contract("linear", codes_a, codes_w, bits_a=5, bits_b=5, exponent=-14).astype(float)
off = 100 * (ungated(codes_w, codes_a) / gated - 1).mean(axis=1)
print("sums without the gate, percent too large, from the loudest sample to the quietest:", off.round(1))
assert off[0] < 1 and off[-1] > 5

# %% [markdown]
# *Freeze the scale.* Errors do not stay as large as they are now. Keep today's $\beta$ for errors that have become
# smaller, and see how many are left:

# %%
tensor, q = seen["error"]
for octaves in (0, 4, 8, 12, 16):
    smaller = (tensor * np.float32(2.0**-octaves)).astype(np.float32)
    kept = [np.count_nonzero(PoT(5).encode(smaller, scales=scales).codes) for scales in (q.scales, None)]
    print(f"errors 2^-{octaves:<2}: {100 * kept[0] / q.codes.size:5.1f} % are not zero under the old scale, "
          f"{100 * kept[1] / q.codes.size:5.1f} % under their own")
assert kept[0] == 0 < kept[1]

# %% [markdown]
# *Start $\gamma$ at 1.* Nothing lies outside $t = M$, so the sum in its gradient is empty, and $\gamma$ stays at 1 for
# ever. That is why minilp starts at 0.9 (our default; what the paper does was not read):

# %%
x = rng.standard_normal(1000).astype(np.float32)
slopes = {gamma: prc_backward(x, np.sign(x), gamma)[1] for gamma in (1.0, 0.9)}
print({gamma: round(slope, 2) for gamma, slope in slopes.items()})
assert slopes[1.0] == 0 < slopes[0.9]

# %% [markdown]
# ## Differences from the paper
#
# Tags: *verified*: read in the source. *recalled*: from memory, not confirmed. *derived*: computed here or forced by
# what is verified. *default*: our choice where nothing is known. What is recalled or default is our assumption, not the
# paper's result.
#
# | what | the paper | here | tag | effect |
# |---|---|---|---|---|
# | the product | INT4 additions and a 1-bit XOR, forward and backward (abstract) | the same, exact | verified | no multiplier in the three products |
# | bits | INT4 exponents, so 5 with the sign | `PoT(bits=5)` for weights, activations, errors | derived | 31 values, 14 octaves |
# | the scale $\beta$ | adaptive and layer-wise (abstract); the equation was not read | from each tensor's own maximum, rounded | recalled | the maximum is on the top code |
# | zero | not read | a gate; the exponent code left over | default | zeros add nothing; see *Break it* |
# | the accumulator | an INT32 adder is in the energy table | int64 or counts, so exact; `accumulate="int32"` counts its overflows | recalled | the figure above is what INT32 would do |
# | WBC | named in the abstract, for stable training and accuracy | minus the layer's mean, not added back, identity backward | recalled (mean), default (axis, not added back, backward) | measured above |
# | PRC | named in the abstract | activations only, $t = \gamma M$, gradient as in exercise 5 | recalled ($\gamma M$), default (gradient) | measured above |
# | $\gamma$ | not read | starts at 0.9, kept within 1/8 and 1, no weight decay | default | *Break it* has the case of 1 |
# | rounding of errors | not read | to nearest, coded once for both products | default | biased, see lesson 01 |
# | float32 parts | the claim is about linear layers (abstract) | weights between steps, updates, batch norm, loss | recalled | |
# | accuracy | less than 1 point lost, on ImageNet and WMT (abstract) | tiny trainings on `shapes10` | verified (the claim) | nothing here confirms or refutes it |
#
# ## Summary
#
# 1. $\beta = \mathrm{round}(\log_2 M) - e_{\max}$ puts each tensor's maximum on the top code, by integers alone.
# 2. A product is an exponent addition and a sign XOR behind a zero gate; sums of them are exact, scaled once.
# 3. Five-bit products fill 29 bits, so INT32 overflows in long sums: count them, or accumulate wider.
# 4. WBC makes the network blind to the mean of its weights, where powers of two are coarse and training may fail.
# 5. PRC trades octaves at the top for octaves at the bottom: less error and training loss at 3 bits, no gain at 5.
#
# ## Questions
#
# 1. *(code)* Give float32 a WBC: subtract the mean of each convolution's weights after every optimizer step, and train
#    it shifted. How much of what WBC bought above was about powers of two?
# 2. *(code)* Repeat the overflow figure with a threshold: activations clipped at $\gamma = 0.25$. Why does PRC make
#    overflows more likely?
# 3. *(thought)* An INT32 accumulator overflowed twice, once at each end, and the final sum fits. Is the result right?
#    Does your `int32_add` agree?
# 4. *(thought)* WBC could add the mean's contribution back, after the integers: (mean of $W$) x (sum of the inputs).
#    What would that cost for each output, and what promise of the paper would it break?
#
# Next: lesson 03 shares a scale among fewer numbers, on three levels. Lesson 06 looks at the loops behind `contract`.
