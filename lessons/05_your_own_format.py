# %% [markdown]
# # Lesson 05: your own format
#
# Afterwards you can **write** a number format in under thirty lines; **hold** it to the laws that training relies on;
# **give** it exact integer arithmetic in C by two methods; **train** with it; and **price** it, with numbers of your
# own where nobody has published any.
#
# *You need:* lesson 01 (codes, scales, stochastic rounding). *Time:* 60 to 75 minutes to read and solve; the machine
# takes about two minutes. *Code it walks through:* `minilp/formats/base.py`, `minilp/testing/`,
# `minilp/multiply.py`, `minilp/table_contract.py`, `minilp/energy/`.

# %%
import inspect
import json
import pathlib
import tempfile
import time
from dataclasses import dataclass

import numpy as np

import minilp
from minilp import contract, data, energy, models, nn, optim
from minilp import lessons as lab
from minilp.autograd import Tensor, no_grad
from minilp.data import shapes10
from minilp.energy.plot import draw
from minilp.formats import Fixed, Format, Minifloat, PoT, QTensor, Spec, Stream, absmax
from minilp.kernels import calls
from minilp.recipe import Recipe, Role
from minilp.table_contract import table_contract
from minilp.testing import LAWS, check_format, exact

IMAGES, EPOCHS, BATCH = (960, 2, 16) if lab.fast() else (2000, 4, 32)  # of each training
rng = np.random.default_rng(0)
print(f"minilp {minilp.__version__}, numpy {np.__version__}, {EPOCHS} epochs of {IMAGES} images a training")

# %% [markdown]
# ## Symbols
#
# | symbol | meaning | in code | shape |
# |---|---|---|---|
# | $m_1 < m_2 < \dots < m_n$ | the *magnitudes*: integers from 1 to 127 | `fmt.magnitudes` | $n$ numbers |
# | $b$ | bits of a code | `fmt.bits` | a number |
# | $c$ | the code: a signed level, from $-n$ to $n$ | `q.codes` | that of $x$ |
# | $u = 2^e$ | the *unit*: what magnitude 1 is worth in this tensor | `fmt.unit(q)`, with $e$ in `q.scales[0]` | one for the tensor |
# | $Q(x) = \pm\, m_{\lvert c \rvert}\, u$ | what the code stands for ($m_0 = 0$) | `q.decode()` | that of $x$ |
# | $T[c]$ | the *table*: $\pm\, m_{\lvert c \rvert}$ for every code | `fmt.table()` | 256 |
#
# A format of this kind is called a *codebook*: the values are a list, and the list is free. As an example we take
# Fibonacci's numbers, 1, 2, 3, 5, 8, 13, 21: each is about 1.6 times the one before. That is finer than powers of two
# and reaches further than integers in equal steps. With their negatives and zero they are 15 values, so $b = 4$.

# %% [markdown]
# ## One number by hand
#
# Take the tensor $[1,\ 0.3,\ -0.07]$ again, as in lesson 01.
#
# * The unit is the smallest power of two under which the top magnitude reaches the largest number: $21 \cdot 2^{-5}$ is
#   $0.66$, too small; $21 \cdot 2^{-4} = 1.31$ will do. So $e = -4$, $u = 1/16$.
# * $1 / u = 16$ lies between 13 and 21, nearer to 13: level 6, which stands for $13/16 = 0.8125$.
# * $0.3 / u = 4.8$ becomes 5: level 4, for $0.3125$. And $-0.07 / u = -1.12$ becomes $-1$: level $-1$, for $-0.0625$.
#
# Two of these numbers multiplied: $13 \cdot 5 = 65$, worth $65\, u^2$. Products of codes are integers, sums of products
# are integers, and the unit comes in once, at the end. That is why magnitudes are integers.
#
# ## The pieces
#
# > **Exercise 1** (★, 2 lines). Write `unit_exponent`: the smallest integer $e$ with
# > $\mathrm{top} \cdot 2^e \ge \mathrm{maximum}$; 0 where the maximum is 0. It gets an array of maxima, and returns an
# > array of integers.
# >
# > - *Hint 1:* `fraction, power = np.frexp(v)` gives $v = \mathrm{fraction} \cdot 2^{\mathrm{power}}$ with
# > $0.5 \le \mathrm{fraction} < 1$, exactly (and 0, 0 for 0). Take `maximum / top` for `v`.
# > - *Hint 2:* then $2^{\mathrm{power}}$ is above $v$, and never equal to it. Where $v$ is a power of two, the fraction
# > is exactly 0.5, and the exponent may be one less.


# %% exercise=1 lines=2
def unit_exponent(maximum: np.ndarray, top: int) -> np.ndarray:
    """The smallest exponent under which the top magnitude reaches the maximum."""
    maximum = np.asarray(maximum, np.float64)  # tells a float32 just above top * 2^e from that product
    ### BEGIN SOLUTION
    fraction, power = np.frexp(maximum / top)
    return power - (fraction == 0.5)
    ### END SOLUTION


# %%
lab.check(1, unit_exponent, [
    ((np.array([1.0]), 21), np.array([-4])),
    ((np.array([21.0, 42.0, 21.001]), 21), np.array([0, 1, 1])),
    ((np.array([[0.0], [12.0]]), 12), np.array([[0], [0]])),
    ((np.array([1.0, 0.9]), 1), np.array([0, 0]))])

# %% [markdown]
# Next, between which two levels does a number lie? Here is the simple version, for one number, which only knows the
# nearest one. The real one must work on whole tensors, and for stochastic rounding it must know *both* neighbours.

# %%
FIBONACCI = (1, 2, 3, 5, 8, 13, 21)


def nearest_one(size: float, magnitudes: tuple = FIBONACCI) -> int:
    """The level whose magnitude is nearest to a size, which is given in units."""
    levels = (0, *magnitudes)
    return min(range(len(levels)), key=lambda k: abs(levels[k] - size))


print([nearest_one(size) for size in (16.0, 4.8, 1.12)])

# %% [markdown]
# > **Exercise 2** (★★, 3 lines). Write `between` for sizes (in units, not negative) and all levels, from 0 upwards. It
# > returns two arrays: the level `low` at or below the size, and how far the size is on the way from `low` to `low + 1`,
# > from 0 to 1. Above the top level, `low` is the last but one, and the way is longer than 1.
# >
# > - *Hint 1:* `np.searchsorted(levels, size, "right")` counts the levels at or below each size.
# > - *Hint 2:* `low` must not exceed `len(levels) - 2`: `np.minimum`.
# > - *Hint 3:* an array of levels, indexed by an array, gives an array: `levels[low + 1] - levels[low]`.


# %% exercise=2 lines=3
def between(size: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The level at or below each size, and which share of the step to the next one it has gone."""
    ### BEGIN SOLUTION
    low = np.minimum(np.searchsorted(levels, size, "right") - 1, len(levels) - 2)
    share = (size - levels[low]) / (levels[low + 1] - levels[low])
    return low, share
    ### END SOLUTION


# %%
LEVELS = np.array((0, *FIBONACCI), np.float32)
sizes = np.array([0, 0.25, 1, 4.5, 16, 21, 37], np.float32)
lab.check(2, between, [
    ((sizes, LEVELS),
     (np.array([0, 0, 1, 3, 6, 6, 6]), np.array([0, 0.25, 0, 0.75, 0.375, 1, 3], np.float32))),
    ((np.array([[2.5], [9.0]]), np.array([0.0, 1, 3, 9])),
     (np.array([[1], [2]]), np.array([[0.75], [1.0]])))])

# %% [markdown]
# > **Exercise 3** (★★, 3 lines). Write `rounded`: `low`, or one more. Without draws (`draw=None`) to the nearer one, and
# > in the middle to the *even level*. With draws, spread evenly from 0 to 1, up with the probability `share`.
# >
# > - *Hint 1:* up where `share > 0.5`, or where it is exactly 0.5 and `low` is odd.
# > - *Hint 2:* on arrays, write `&` and `|` for and, or, with each comparison in parentheses.
# > - *Hint 3:* with draws: up where the draw is below the share. A share above 1 is always up, so what lies beyond the
# > top saturates there.


# %% exercise=3 lines=3
def rounded(low: np.ndarray, share: np.ndarray, draw: np.ndarray | None = None) -> np.ndarray:
    """The level that a number between low and low + 1 is rounded to."""
    ### BEGIN SOLUTION
    if draw is None:
        return low + ((share > 0.5) | (share == 0.5) & (low % 2 == 1))
    return low + (draw < share)
    ### END SOLUTION


# %%
low, share = np.array([0, 3, 4, 4, 5, 6]), np.array([0.25, 0.5, 0.5, 0.51, 0.49, 3])
lab.check(3, rounded, [
    ((low, share), np.array([0, 4, 4, 5, 5, 7])),
    ((low, share, np.array([0.25, 0.49, 0.5, 0.0, 0.9, 0.99])), np.array([0, 4, 4, 5, 5, 7])),
    ((low, share, np.array([0.24, 0.5, 0.49, 0.6, 0.48, 0.0])), np.array([1, 3, 5, 4, 6, 7]))])
sizes = rng.uniform(0, 25, 2000)
one_by_one = [nearest_one(size) for size in sizes]
assert lab.same("the simple version and yours", one_by_one, rounded(*between(sizes, LEVELS)))

# %% [markdown]
# Last, the table: the integers that codes stand for, of type int8, indexed by `code & 255`. So code $-1$ is entry 255 and
# code $-2$ is entry 254, which are also Python's entries $-1$ and $-2$. What is no code has entry 0.
#
# > **Exercise 4** (★, 4 lines). Write `table_of`.
# >
# > - *Hint 1:* start from `np.zeros(256, np.int8)`.
# > - *Hint 2:* `np.arange(1, n + 1)` are the positive codes. Two assignments: for the codes, and for their negatives.


# %% exercise=4 lines=4
def table_of(magnitudes: tuple) -> np.ndarray:
    """int8 of length 256: what each code & 255 stands for, in units."""
    ### BEGIN SOLUTION
    table, codes = np.zeros(256, np.int8), np.arange(1, len(magnitudes) + 1)
    table[codes] = magnitudes
    table[-codes] = np.negative(magnitudes)
    return table
    ### END SOLUTION


# %%
def padded(first: list, last: list) -> np.ndarray:
    """256 entries, the middle ones zero."""
    return np.array([*first, *[0] * (256 - len(first) - len(last)), *last], np.int8)


lab.check(4, table_of, [
    (((1,),), padded([0, 1], [-1])), (((1, 3, 9),), padded([0, 1, 3, 9], [-9, -3, -1])),
    ((FIBONACCI,), padded([0, *FIBONACCI], [-m for m in FIBONACCI[::-1]]))])
assert lab.same("table of Fixed(4) and yours", Fixed(4).table(), table_of((1, 2, 3, 4, 5, 6, 7)))

# %% [markdown]
# ## The format
#
# A format is a frozen dataclass that subclasses `minilp.Format`: its fields are its parameters, and two with the same
# parameters are equal. Three things are required: `bits`, `encode`, `decode`. What `encode` is given and must return is
# in its docstring, which is worth reading now:

# %%
print(inspect.getsource(Format.encode))

# %% [markdown]
# > **Exercise 5** (★★, 4 lines). Complete `Codebook.encode` with your pieces: sizes in units, levels, codes with the
# > signs of `x`, and the record. The judge is `check_format`, which holds the format to all laws.
# >
# > - *Hint 1:* the unit is `np.ldexp(np.float32(1), scales[0])`; sizes are `np.abs(x)` divided by it.
# > - *Hint 2:* codes must lie in memory as `x` does. `codes = np.empty_like(x, np.int8)` does that, and
# > `codes[...] = ...` fills it.
# > - *Hint 3:* `np.copysign(levels_of_x, x)` puts the signs on.
# > - *Hint 4:* `return QTensor(self, codes, scales, keep=keep)`.


# %% exercise=5 lines=4
@dataclass(frozen=True)
class Codebook(Format):
    """Integers by a list, their negatives and zero, times a power of two."""

    magnitudes: tuple[int, ...] = FIBONACCI

    @property
    def bits(self):
        return len(self.magnitudes).bit_length() + 1

    def codes(self):
        return np.arange(-len(self.magnitudes), len(self.magnitudes) + 1).astype(np.int8)

    def encode(self, x, *, keep=(), stream=None, scales=None):
        largest, levels = absmax(x, keep), np.array((0, *self.magnitudes), np.float32)
        if scales is None:
            scales = (np.clip(unit_exponent(largest, self.magnitudes[-1]), -120, 120).astype(np.int32),)
        draw = None if stream is None else (stream.uint32(x.shape) >> 8) * np.float32(2.0**-24)
        ### BEGIN SOLUTION
        low, share = between(np.abs(x) / np.ldexp(np.float32(1), scales[0]), levels)
        codes = np.empty_like(x, np.int8)
        codes[...] = np.copysign(rounded(low, share, draw), x)
        return QTensor(self, codes, scales, keep=keep)
        ### END SOLUTION

    def decode(self, q):
        return table_of(self.magnitudes)[q.codes] * self.unit(q)

    def table(self):
        return table_of(self.magnitudes)

    def unit(self, q):
        return np.ldexp(np.float32(1), q.scales[0])


# %%
def keeps_every_law(magnitudes: tuple) -> bool:
    """True, or an error that names the law, what went in and what came out."""
    Codebook(magnitudes).encode(np.ones(3, np.float32))  # where it fails outright, in its own words
    check_format(Codebook(magnitudes))
    return True


lab.check(5, keeps_every_law, [
    ((FIBONACCI,), True), (((1, 3, 9),), True), (((1, 2, 4, 7, 13, 24, 44),), True)])

# %% [markdown]
# Fewer than thirty lines of code, without the empty ones. These are the laws that it keeps:

# %%
for law in LAWS:
    print("-", law)

# %% [markdown]
# Your list decides what the format is. With equal steps it is four-bit fixed point; with 1, 2, 3, 4, 6, 8, 12 it is FP4
# (E2M1), counted in halves. minilp has both, in C, and the codes are the same, also when rounded with draws:

# %%
LISTS = {"fixed": (1, 2, 3, 4, 5, 6, 7), "minifloat": (1, 2, 3, 4, 6, 8, 12), "own": FIBONACCI,
         "pot": (1, 2, 4, 8, 16, 32, 64)}
x = rng.standard_normal(2000).astype(np.float32)
for name, theirs in (("fixed", Fixed(4)), ("minifloat", Minifloat(2, 1))):
    for stream in (None, Stream(seed=1)):
        mine = Codebook(LISTS[name]).encode(x, stream=stream)
        how = "to nearest" if stream is None else "stochastic"
        assert lab.same(f"yours and {theirs}, {how}", mine.codes, theirs.encode(x, stream=stream).codes)

# %% [markdown]
# The last list is powers of two. It has the seven magnitudes of `PoT(4)`, and yet it is another format: you round to the
# nearest *value*, PoT to the nearest *exponent*; and PoT rounds its scale too, so that its top may lie below the maximum.

# %%
mine, theirs = (fmt.encode(x).decode() for fmt in (Codebook(LISTS["pot"]), PoT(4)))
assert not lab.same("values: yours and PoT(4)", mine, theirs)

# %% [markdown]
# All four have 15 values. **Which has the smallest mean square error on normal numbers?** 0 for fixed point, 1 for FP4,
# 2 for Fibonacci, 3 for powers of two.

# %%
my_guess = None

# %%
x = rng.standard_normal(100_000).astype(np.float32)
mse = {name: float(np.mean((Codebook(LISTS[name]).encode(x).decode() - x) ** 2)) for name in LISTS}
for name, error in mse.items():
    print(f"{LISTS[name]!s:28} mean square error {error:.4f}")
lab.guess(my_guess, list(mse.values()).index(min(mse.values())))
rows = {str(magnitudes): (name, np.array((0, *magnitudes)) / magnitudes[-1])
        for name, magnitudes in LISTS.items()}
lab.number_lines(rows,
                 "value (top magnitude: 1)", "The same number of values, differently spread.")

# %% [markdown]
# ## C speed
#
# A layer's products are contractions of two coded tensors: the forward one and two backwards. This is how minilp finds
# somebody to do one. A format may have a kernel of its own (`contract`); if neither has, two tables of small integers
# are enough for the *table kernel*; else the decoded numbers are multiplied in float64.

# %%
print(inspect.getsource(table_contract))

# %% [markdown]
# So `table` and `unit` are all it takes. To see what they are worth, hide the table. First, the simple version of a
# linear layer's product, in Python's integers, against both:

# %%
class Untabled(Codebook):
    """The same numbers, with nothing that says they are integers."""

    def table(self):
        return None


def by_hand(a: QTensor, b: QTensor) -> np.ndarray:
    """a (N, I) times b (O, I) transposed, in Python's integers; the units come in at the end."""
    whole_a, whole_b = ([[int(table_of(FIBONACCI)[c]) for c in row] for row in q.codes] for q in (a, b))
    sums = [[sum(m * n for m, n in zip(row, column, strict=True)) for column in whole_b]
            for row in whole_a]
    return np.array(sums, np.float64) * a.format.unit(a) * b.format.unit(b)


x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((20, 64), (10, 64)))
results = {}
for fmt in (Untabled(), Codebook()):
    a, b = fmt.encode(x), fmt.encode(w)
    with contract.executed() as how, calls() as kernels:
        results[str(fmt)] = contract.multiply(a, b, Spec("linear"))
    print(*how, "| kernels:", *(kernels or ["NumPy's matrix product"]))
    assert lab.same("by hand and minilp", by_hand(a, b), results[str(fmt)])
with minilp.use_backend("numpy"):
    twin = contract.multiply(a, b, Spec("linear"))
assert lab.same("the kernel's NumPy twin and C", twin, results[str(fmt)])
assert list(how) == ["linear: Codebook() x Codebook() in integers (table kernel)"]

# %% [markdown]
# Small sums are exact in float64 too, so the results are equal; what differs is the time. Now a convolution as in the
# net below, 32 images with 32 channels. **How many times as long does the emulation take (processor time)?**

# %%
my_guess = None

# %%
x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((32, 32, 16, 16), (32, 32, 3, 3)))
spec = Spec("conv2d", padding=(1, 1))


def processor_time(fmt: Format) -> float:
    """Seconds of processor time of one contraction, the median of seven."""
    a, b, seconds = fmt.encode(x), fmt.encode(w), []
    for _ in range(7):
        start = time.process_time()
        contract.multiply(a, b, spec)
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))


ratio = processor_time(Untabled()) / processor_time(Codebook())
lab.guess(my_guess, round(ratio, 1), "times")

# %% [markdown]
# (`encode` is still NumPy, which is slow beside the kernel. A quantiser in C is the next step, and a
# contribution to minilp: `cext/README.md` says how.)
#
# ## The experiment: train with it
#
# `small_cnn` on `shapes10`, the built-in images, with weights, activations and errors in your format; errors rounded
# stochastically. A recipe of your own is a line. Beside Fibonacci's seven there is a list of ten that reaches further, 1
# to 89, and needs five bits. About a minute.

# %%
train_set, test_set = shapes10.load(seed=0, train=IMAGES, test=500)


def train(fmt: Format | None) -> tuple[list, float, set]:
    """Loss of every step, test accuracy, and how contractions were computed; None trains in float32."""
    minilp.manual_seed(0)
    model = models.build("small_cnn", width=8)
    if fmt is not None:
        Recipe(weight=fmt, act=fmt, error=Role(fmt, rounding="stochastic")).apply(model)
    optimizer, losses = optim.SGD(model.parameters(), lr=0.1, momentum=0.9), []
    loader = data.Loader(train_set, BATCH)
    schedule = optim.OneCycleLR(optimizer, max_lr=0.1, total_steps=EPOCHS * -(-IMAGES // BATCH))
    with contract.executed() as how:
        for epoch in range(EPOCHS):
            for x, y in loader.epoch(epoch):
                with minilp.rounding_context(0, len(losses)):
                    loss = nn.functional.cross_entropy(model(Tensor(x)), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                schedule.step()
                losses.append(loss.item())
    x, y = next(data.Loader(test_set, 500, shuffle=False).epoch(0))
    with no_grad():
        accuracy = float(np.mean(model.eval()(Tensor(x)).data.argmax(axis=1) == y))
    return losses, accuracy, {words.partition(" in ")[2] for words in how}


TEN = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)
runs = {"float32": ("fp32", None), "Fibonacci, 4 bits": ("own", Codebook()),
        "Fibonacci, 5 bits": ("own", Codebook(TEN))}
if not lab.fast():
    runs |= {"fixed point, 4 bits": ("fixed", Codebook(LISTS["fixed"])),
             "FP4 (E2M1)": ("minifloat", Codebook(LISTS["minifloat"]))}
trained = {}
for label, (_, fmt) in runs.items():
    losses, accuracy, how = trained[label] = train(fmt)
    print(f"{label:20} loss {np.mean(losses[-20:]):.3f}, {100 * accuracy:.1f} % of test images right, "
          f"in {', '.join(how) or 'float32'}")

# %%
def smooth(losses: list) -> np.ndarray:
    """Means of 20 steps each."""
    return np.mean(np.reshape(losses[:len(losses) // 20 * 20], (-1, 20)), axis=1)


curves = {label: smooth(losses) for label, (losses, _, _) in trained.items()}
lab.lines({label: (runs[label][0], 20 * np.arange(1, len(curve) + 1), curve)
           for label, curve in curves.items()},
          "training step", "loss (mean of 20 steps)",
          "shapes10: every list learns; none as fast as float32.")

# %%
for label, (losses, accuracy, how) in trained.items():
    assert np.mean(losses[-20:]) < (0.98 if lab.fast() else 0.8) * np.mean(losses[:20]), label
    assert how == (set() if runs[label][1] is None else {"integers (table kernel)"}), label
    assert lab.fast() or accuracy > 0.25, label  # chance: 0.1

# %% [markdown]
# The three products of each layer ran on your integers, in training too: nothing was emulated. Four bits and one
# scale for a whole tensor are hard. What the papers of lessons 02 to 04 add to their formats (clipping, scales for groups,
# another optimizer) is meant to narrow the gap.
#
# ## The energy chart
#
# What would the arithmetic cost in hardware made for it? minilp counts operations in a real step and prices them by a
# list. Your format has not said what its operations are, and then there is no answer, not a free one:

# %%
def recipe_of(fmt: Format) -> Recipe:
    """All three operands in one format."""
    return Recipe(weight=fmt, act=fmt, error=fmt, name="codebook")


try:
    energy.report("small_cnn", recipe_of(Codebook()), batch_size=2)
    refused = ""
except energy.Unpriced as error:
    refused = str(error)
print(refused)
assert "define Codebook." in refused

# %% [markdown]
# > **Exercise 6** (★★, 3 lines). Write `mac_cost`: the operations of one multiply-accumulate. The product of two signed
# > integers takes a multiplier as wide as the wider of the two, sign bit included; its name is `intN_mul`. The sum is an
# > `int32_add`. Return a dict of operation name to count, as in `{"int6_mul": 1, "int32_add": 1}`.
# >
# > - *Hint 1:* `(21).bit_length()` is 5; with the sign, 6.
# > - *Hint 2:* the widest magnitude is the last of its list.


# %% exercise=6 lines=3
def mac_cost(magnitudes: tuple, others: tuple) -> dict:
    """Operations of one multiply-accumulate of a number of one codebook with one of another."""
    ### BEGIN SOLUTION
    width = 1 + max(magnitudes[-1], others[-1]).bit_length()
    return {f"int{width}_mul": 1, "int32_add": 1}
    ### END SOLUTION


# %%
lab.check(6, mac_cost, [
    ((FIBONACCI, FIBONACCI), {"int6_mul": 1, "int32_add": 1}),
    ((TEN, (1,)), {"int8_mul": 1, "int32_add": 1}), (((1, 2, 3), TEN), {"int8_mul": 1, "int32_add": 1}),
    (((1,), (1,)), {"int2_mul": 1, "int32_add": 1}), (((1, 3, 9), (1, 2, 4)), {"int5_mul": 1, "int32_add": 1}),
    (((1, 8), (1, 7)), {"int5_mul": 1, "int32_add": 1})])

# %% [markdown]
# Two more say what stands beside the products: scaling a sum, once an output, and encoding an element. Papers do not
# list these; the counts below are our assumptions. A comparison counts as an addition.

# %%
@dataclass(frozen=True)
class Priced(Codebook):
    """A codebook that says what it costs."""

    def cost(self, other):
        return mac_cost(self.magnitudes, other.magnitudes)

    def sum_cost(self, other):  # the sum to float32, both units onto its exponent
        return {"run": {}, "tree": {}, "output": {"int32_add": 1, "int8_add": 1}}

    def encode_cost(self):  # the maximum, the unit onto the exponent, a binary search among the levels
        return {"fp32_add": 1 + len(self.magnitudes).bit_length(), "int8_add": 1}


report = energy.report("small_cnn", recipe_of(Priced()), batch_size=8,
                       baselines=("fp32", "fp8", "int8", "potq"))

# %% [markdown]
# **How many percent of the energy of float32's products do yours take?** The list (M. Horowitz's numbers for 45 nm) has
# 3.7 and 0.9 pJ for a multiplication and an addition in float32 (*verified*), 0.1 for an integer addition of 32 bits
# (*verified*), and 0.2 for a multiplication of 8 bits (*recalled*). And of 6 bits?

# %%
my_guess = None

# %%
def products(report: energy.Report, name: str) -> float:
    """Energy of all products of a step, in the list's unit."""
    return report.priced[name].total("forward", "input_grad", "weight_grad")


share = 100 * products(report, "codebook") / products(report, "fp32")
lab.guess(my_guess, round(share, 2), "%")
print(str(report).split("\n\n")[-2])
lab.Picture(draw(report), "Products shrink; what float32 does beside them remains.")

# %% [markdown]
# Your products cost exactly what those of `int8` cost: the list has no multiplier of six bits, and charges the next wider
# one that it has. It says so among its sources. If you think that is unfair, write a list of your own, which *extends* this one. A
# multiplier's area and energy grow about with the square of its width, so $0.2 \cdot (6/8)^2$; and the tag is *default*:
# our assumption.

# %%
own = {"name": "mine", "unit": "pJ", "node": "45 nm", "extends": "horowitz-45nm", "prices": [
    {"operation": "int6_mul", "value": 0.2 * (6 / 8) ** 2, "provenance": "default",
     "source": "int8_mul by the square of the width"}]}
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "mine.json"
    path.write_text(json.dumps(own))
    mine = energy.report("small_cnn", recipe_of(Priced()), batch_size=8, prices=path)
share_now = 100 * products(mine, "codebook") / products(mine, "fp32")
print(f"products: {share:.2f} % of float32's before, {share_now:.2f} % now")
print(*(line for line in str(mine).splitlines() if "int6_mul" in line and "pJ" in line), sep="\n")
assert products(report, "codebook") == products(report, "int8") > products(mine, "codebook")

# %% [markdown]
# ## Break it
#
# The suite is there to be broken. Each of these formats has one fault; the message names the law.

# %%
def fault(fmt: Format) -> str:
    """What check_format says of a format, or nothing."""
    try:
        check_format(fmt)
    except AssertionError as error:
        return str(error)
    return ""


class FlipsACoin(Codebook):
    """Goes up or down with equal probability, wherever between its neighbours the number lies."""

    def encode(self, x, *, keep=(), stream=None, scales=None):
        q = super().encode(x, keep=keep, scales=scales)
        if stream is None:
            return q
        low, share = between(np.abs(x) / self.unit(q), np.array((0, *self.magnitudes), np.float32))
        up = (share > 0) & ((share >= 1) | (stream.uint32(x.shape) < 2**31))
        codes = np.empty_like(x, np.int8)
        codes[...] = np.copysign(low + up, x)
        return QTensor(self, codes, q.scales, keep=keep)


class Flat(Codebook):
    """Codes in C order, whatever the memory order of x."""

    def encode(self, x, **options):
        q = super().encode(x, **options)
        return QTensor(self, np.array(q.codes, order="C"), q.scales, keep=q.keep)


class ForgetsNaN(Codebook):
    """Looks at the numbers only where it needs their maximum."""

    def encode(self, x, *, keep=(), stream=None, scales=None):
        clean = x if scales is None else np.nan_to_num(x)
        return super().encode(clean, keep=keep, stream=stream, scales=scales)


class WrongTable(Codebook):
    """The kernel would compute with 20 where decode says 21."""

    def table(self):
        table = table_of(self.magnitudes)
        table[7], table[-7] = 20, -20
        return table


for broken in (FlipsACoin, Flat, ForgetsNaN, WrongTable):
    message = fault(broken())
    print(message, end="\n\n")
    assert message, broken

# %% [markdown]
# *A magnitude that does not fit.* The table is of int8, which ends at 127. The next of Fibonacci's numbers after 89 is
# 144:

# %%
wrapped = int(np.array([144]).astype(np.int8)[0])
print("144 as int8:", wrapped)
assert wrapped < 0

# %% [markdown]
# NumPy 2 raises where a table is filled with it, older versions do not. A format for others should not leave that to
# chance: a dataclass has `__post_init__`, which is the place to refuse such a list, saying what came and what was
# expected.
#
# *A scale along the sum.* With `keep=(1,)` each input feature of a linear layer has its own unit. Then the unit cannot
# wait until the end of the sum, and the contraction is refused, naming the axis:

# %%
x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((20, 64), (10, 64)))
try:
    contract.multiply(Codebook().encode(x, keep=(1,)), Codebook().encode(w), Spec("linear"))
    failed = False
except ValueError as error:
    failed = True
    print(error)
assert failed

# %% [markdown]
# *A unit that is no power of two.* Take the maximum divided by 21, so that nothing of the range is wasted. (Whether the
# error becomes smaller depends on the tensor: the upper levels are the coarse ones.) Now a decoded value is rounded, and
# so is the product of two units. The kernel's result and the exact contraction of the decoded values part in their last
# bits:

# %%
class Tight(Codebook):
    """The unit is the maximum divided by the top magnitude, in float32."""

    def encode(self, x, *, keep=(), stream=None, scales=None):
        unit = absmax(x, keep) / np.float32(self.magnitudes[-1]) if scales is None else scales[0]
        low, share = between(np.abs(x) / unit, np.array((0, *self.magnitudes), np.float32))
        return QTensor(self, np.copysign(rounded(low, share), x).astype(np.int8), (unit,), keep=keep)

    def unit(self, q):
        return q.scales[0]


for fmt in (Codebook(), Tight()):
    a, b = fmt.encode(x), fmt.encode(w)
    print(f"{type(fmt).__name__}: mean square error of x {np.mean((a.decode() - x) ** 2):.4f}")
    got = contract.multiply(a, b, Spec("linear"))
    wanted = exact.contraction(a.decode(), b.decode(), Spec("linear"))
    equal = lab.same(f"{type(fmt).__name__}: contraction and exact integers", got, wanted)
    assert equal != isinstance(fmt, Tight)

# %% [markdown]
# ## Differences from the paper
#
# The format is yours, so there is no paper; these are its relations to published ones. Tags: *verified*: read in the
# source. *recalled*: from memory. *derived*: computed here. *default*: our choice.
#
# | what | elsewhere | here | tag | effect |
# |---|---|---|---|---|
# | FP4's values | 0.5, 1, 1.5, 2, 3, 4, 6 (OCP's E2M1) | the same, doubled | recalled | equal to `Minifloat(2, 1)`, measured above |
# | values by a list | fitted to the data, or quantiles of a normal distribution (NF4, Dettmers et al. 2023) | integers up to 127 | recalled | products and sums are exact integers |
# | lists made for cheap products | sums of a few powers of two (additive powers of two, Li et al. 2020) | any integers | recalled | theirs need shifts and adds, ours a multiplier |
# | scale | one for 32 elements (OCP's MX), for a group (MLS) or a layer | one for the tensor, a power of two | recalled | one scale takes no bits to speak of, but costs accuracy |
# | Fibonacci's numbers | not used that we know of | 4 bits: 1 to 21 | default | a level is 0.69 octaves wide, for large levels (derived) |
# | encoding and scaling | papers list no operations | `encode_cost`, `sum_cost` | default | part of "everything", not of "products" |
# | price of a 6-bit multiplication | not in Horowitz's table | that of 8 bits, or your own | default | the chart above, and the line after it |
#
# ## Summary
#
# 1. A format is a frozen dataclass with `bits`, `encode` and `decode`; the rest has defaults.
# 2. `check_format` holds it to the laws that training relies on, and names the one that is broken.
# 3. With `table` and `unit`, every contraction runs exactly on integers, in C, forwards and backwards.
# 4. A unit that is a power of two keeps the result of a contraction to one rounding.
# 5. What a format costs is what it says; what it does not say is an error, and what nobody published is tagged.
#
# ## Questions
#
# 1. *(code)* Choose seven magnitudes of your own and train with them. Does the list with the smallest mean square error
#    on normal numbers learn best?
# 2. *(code)* Give weights one list and errors another (`Recipe(weight=..., act=..., error=...)`). Which role gains most
#    from reach, and which from resolution?
# 3. *(thought)* A list without zero has one magnitude more. Which law would it break, how would it declare that, and
#    what would ReLU's zeros become?
# 4. *(thought)* How many products of two magnitudes can a signed sum of 32 bits take before it might overflow: for
#    magnitudes up to 127, and up to 21? How long are the sums of the layers you know?
#
# Next: lesson 06 looks inside the C core.
