# %% [markdown]
# # Lesson 01: numbers
#
# Afterwards you can **encode** a number by hand in fixed point, as a small float, as a power of two and as a
# logarithmic number; **draw** their number lines; **say** when rounding is biased, when random rounding is not, and why
# a format that reaches further must be coarser.
#
# *You need:* Python, a little NumPy, logarithms to base 2. *Time:* 60 to 75 minutes to read and solve; the machine
# takes under 10 seconds. *Code it walks through:* `minilp/formats/fixed.py`, `minifloat.py`, `pot.py`, `lns.py`, and
# `minilp/kernels/reference_quantise.py`.

# %%
import inspect
import math

import numpy as np

import minilp
from minilp import lessons as lab
from minilp.formats import LNS, Fixed, Minifloat, PoT, QTensor, Stream
from minilp.formats.pot import rlog2
from minilp.kernels import reference_quantise

DRAWS = 20_000 if lab.fast() else 400_000  # random numbers behind each measured mean
print(f"minilp {minilp.__version__}, numpy {np.__version__}, {DRAWS} draws a mean")

# %% [markdown]
# ## Symbols
#
# | symbol | meaning | in code | shape |
# |---|---|---|---|
# | $x$ | a real number, here float32 | `x` | that of the tensor |
# | $b$ | bits of one code, sign included | `fmt.bits` | a number |
# | $c$ | the code: a signed integer | `q.codes` | that of `x` |
# | $e$ | exponent of the step, fixed point: $x \approx c \cdot 2^e$ | `q.scales[0]` of `Fixed` | one for the tensor |
# | $\beta$ | scale of powers of two: $x \approx \pm 2^{k+\beta}$ | `q.scales[0]` of `PoT` | one for the tensor |
# | $k$ | exponent of a power of two, from $-(2^{b-2}-1)$ to $2^{b-2}-1$ | `abs(code) - 1 - fmt.emax` | that of `x` |
# | $\gamma$ | levels in an octave, logarithmic numbers | `fmt.gamma` | a number |
# | $Q(x)$ | what the code stands for | `q.decode()` | that of `x` |
#
# An *octave* is a factor of two. A *tensor* has one *scale* here: all its codes share it.

# %% [markdown]
# ## One number by hand
#
# Take the tensor $[1,\ 0.3,\ -0.07]$ and five bits. One bit is the sign, so there are about 15 magnitudes to spend.
# Every format first looks at the largest magnitude, 1, to choose its scale; then each number becomes a code.
#
# * **Fixed point**, codes up to 15. The step is the smallest power of two whose 15-fold reaches 1: $2^{-3}$, because
#   $15/16 < 1 \le 15/8$. Then $0.3 / 2^{-3} = 2.4$ rounds to 2, which stands for $0.25$.
# * **Small float** E2M2: two exponent bits, two mantissa bits, largest value 7. The scale is $2^{-2}$, because
#   $7/8 < 1 \le 7/4$. Then $0.3 / 2^{-2} = 1.2$; values from 1 to 2 lie a quarter apart, so it rounds to 1.25, which
#   stands for $0.3125$.
# * **Power of two**: $\log_2 0.3 = -1.74$ rounds to $-2$, which stands for $0.25$.
# * **Logarithmic**, $\gamma = 2$ levels an octave: $2 \cdot \log_2 0.3 = -3.47$ rounds to $-3$, which stands for
#   $2^{-3/2} = 0.354$.
#
# Now do the same for $-0.07$ on paper, in all four. The cell has the answers.

# %%
FIVE_BITS = {"fixed": Fixed(5), "minifloat": Minifloat(2, 2), "pot": PoT(5), "lns": LNS(5, gamma=2)}
x = np.array([1, 0.3, -0.07], np.float32)
for fmt in FIVE_BITS.values():
    q = fmt.encode(x)
    print(f"{fmt!s:22} codes {q.codes!s:14} scale {q.scales[0][0]!s:5} values {q.decode()}")

# %% [markdown]
# minilp's codes are *signed levels*: the smallest positive value is level 1, the next is level 2, and so on; zero is 0.
# So codes compare like the numbers they stand for, whatever the format. (For `LNS` the scale is the largest magnitude
# itself; for the others it is an exponent of two.)
#
# ## Fixed point
#
# > **Exercise 1** (★, 2 lines). Write `fixed_code`: the integer nearest to $x / 2^e$, limited to the range of
# > `bits` bits, $\pm(2^{b-1}-1)$. A number halfway between two integers goes to the even one.
# >
# > - *Hint 1:* Python's `round` already goes to the even neighbour: `round(2.5)` is 2 and `round(3.5)` is 4.
# > - *Hint 2:* limit after rounding, with `min` and `max`.


# %% exercise=1 lines=2
def fixed_code(x: float, exponent: int, bits: int) -> int:
    """The code of x in steps of 2^exponent."""
    ### BEGIN SOLUTION
    top = 2 ** (bits - 1) - 1
    return max(-top, min(top, round(x / 2.0**exponent)))
    ### END SOLUTION


# %%
lab.check(1, fixed_code, [
    ((0.3, -3, 5), 2), ((-0.07, -3, 5), -1), ((0.3125, -3, 5), 2), ((0.4375, -3, 5), 4),
    ((0.3125, -4, 5), 5), ((9.0, -3, 5), 15), ((-9.0, -3, 5), -15), ((0.0, 0, 8), 0)])

# %% [markdown]
# Your function takes one number. The same in NumPy takes a tensor; minilp's own takes a tensor too, in C where there is
# a C core. Three ways, the same integers:

# %%
rng = np.random.default_rng(0)
x = rng.standard_normal(2000).astype(np.float32)
q = Fixed(5).encode(x)
e = int(q.scales[0][0])
loop = np.array([fixed_code(float(v), e, 5) for v in x])
vectors = np.clip(np.rint(x / 2.0**e), -15, 15)
assert lab.same("your loop and NumPy", loop, vectors)
assert lab.same("NumPy and minilp", vectors, q.codes)
with minilp.use_backend("numpy"):
    twin = Fixed(5).encode(x)
assert lab.same(f"minilp's backends, numpy and {minilp.backend().name}", twin.codes, q.codes)

# %% [markdown]
# This is the NumPy twin of the C function, which a test of minilp holds equal to it bit for bit. It works on magnitudes
# and puts the sign back; `stream` is for random rounding, further down.

# %%
print(inspect.getsource(reference_quantise.fixed_encode))

# %% [markdown]
# ## Number lines
#
# Which values does a tensor have whose largest magnitude is 1? Here are all positive values of the four formats.
# Before you look: **which of the four has the most values below 1/8?** Write a number, as in `my_guess = 2`: 0 for
# fixed point, 1 for the small float, 2 for powers of two, 3 for logarithmic.

# %%
my_guess = None


# %%
def values_of(fmt) -> np.ndarray:
    """Every value of a format under the scale of a tensor whose largest magnitude is 1."""
    return QTensor(fmt, fmt.codes(), fmt.scales_for(np.ones(1, np.float32))).decode()


small = [int(np.sum((values_of(fmt) > 0) & (values_of(fmt) < 1 / 8))) for fmt in FIVE_BITS.values()]
print("positive values below 1/8:", dict(zip((str(fmt) for fmt in FIVE_BITS.values()), small, strict=True)))
lab.guess(my_guess, int(np.argmax(small)))

# %%
lines = {str(fmt): (name, values_of(fmt)) for name, fmt in FIVE_BITS.items()}
positive = {row: (name, values[values >= 0]) for row, (name, values) in lines.items()}
lab.number_lines(positive, "value (largest magnitude of the tensor: 1)",
                 "Fixed point is even; the others crowd towards zero.")

# %% [markdown]
# Fixed point spreads its values evenly. The small float is even inside an octave and halves the distance from one
# octave to the next one down, until its exponents are used up; from there to zero it is even again (*subnormals*).
# Powers of two have one value an octave. Logarithmic numbers have $\gamma$.
#
# Also look to the right of 1: fixed point and the small float have values there that this tensor never uses. Their
# scale is a power of two and cannot fit 1 exactly. The same lines on a logarithmic axis:

# %%
lab.number_lines(lines, "value, logarithmic axis",
                 "Powers of two and logarithmic numbers are even here.", log=True)

# %% [markdown]
# ## Small floats
#
# Count upwards through the bit patterns of exponent and mantissa, as if they were one integer: that integer is the
# *level*, and the values grow with it. For `exp` exponent bits and `man` mantissa bits, with the bias
# $B = 2^{\mathrm{exp}-1} - 1$, a level splits into an exponent field $f$ (the upper bits) and a mantissa $m$ (the lower
# `man` bits), and
#
# $$ \text{value} = \begin{cases} (1 + m / 2^{\mathrm{man}}) \cdot 2^{f - B} & f > 0 \\
#    (m / 2^{\mathrm{man}}) \cdot 2^{1 - B} & f = 0 \quad\text{(subnormal)} \end{cases} $$
#
# > **Exercise 2** (★★, 5 lines). Write `minifloat_value` for levels from 0 up. It is checked on every level of
# > E2M1, E2M2, E4M3 and E5M2.
# >
# > - *Hint 1:* `level >> man` are the upper bits, `level & (2**man - 1)` the lower ones.
# > - *Hint 2:* the subnormal case has the exponent of $f = 1$, but no leading 1.


# %% exercise=2 lines=5
def minifloat_value(level: int, exp: int, man: int) -> float:
    """What a level of a small float stands for."""
    ### BEGIN SOLUTION
    field, mantissa = level >> man, level & (2**man - 1)
    bias = 2 ** (exp - 1) - 1
    if field == 0:
        return mantissa / 2**man * 2.0 ** (1 - bias)
    return (1 + mantissa / 2**man) * 2.0 ** (field - bias)
    ### END SOLUTION


# %%
lab.check(2, minifloat_value, [((level, fmt.exp, fmt.man), float(fmt.integers()[level] * 2.0**fmt.step))
                               for fmt in (Minifloat(2, 1), Minifloat(2, 2), Minifloat(4, 3), Minifloat(5, 2))
                               for level in range(fmt.top + 1)])

# %% [markdown]
# The largest level is the format's own rule: E4M3 keeps one pattern for "not a number" and ends at 448, E5M2 keeps a
# whole exponent for it and infinity, and below eight bits every pattern is a number.

# %%
print(Minifloat(4, 3).explain(0.3, -0.07))

# %% [markdown]
# ## Powers of two
#
# With five bits, $k$ goes from $-7$ to 7, and one code is left for zero. The scale puts the largest magnitude on
# $k = 7$: $\beta = \mathrm{round}(\log_2 \max|x|) - 7$. Rounding happens to the exponent: $1.4$ becomes 1 and $1.42$
# becomes
# 2, because the border in the logarithm is $\sqrt 2 = 1.4142\ldots$
#
# > **Exercise 3** (★★, 6 lines). Write `power_level`: 0 for what rounds below the smallest power, else
# > $\pm(k + k_{\max} + 1)$ with $k_{\max} = 2^{b-2} - 1$; what is too large gets $k = k_{\max}$.
# >
# > - *Hint 1:* `math.frexp(v)` gives `m, p` with $v = m \cdot 2^p$ and $0.5 \le m < 1$, exactly. So $\log_2 v$ lies
# > between $p - 1$ and $p$, and rounds to $p$ where $m > \sqrt{1/2}$.
# > - *Hint 2:* zero needs a line of its own; `frexp(0)` is `(0.0, 0)`. The sign can go on last, by `math.copysign`.


# %% exercise=3 lines=6
def power_level(x: float, beta: int, bits: int) -> int:
    """The signed level of x among the powers 2^(k + beta)."""
    ### BEGIN SOLUTION
    if x == 0:
        return 0
    kmax = 2 ** (bits - 2) - 1
    mantissa, power = math.frexp(abs(x))
    k = power - 1 + (mantissa > math.sqrt(0.5)) - beta
    return int(math.copysign(max(0, min(k, kmax) + kmax + 1), x))
    ### END SOLUTION


# %%
def pot_cases(bits: int, beta: int) -> list:
    """Numbers around every border between two powers, and what minilp makes of them."""
    powers = np.ldexp(np.float32(1), np.arange(beta - 2 ** (bits - 2) - 1, beta + 2 ** (bits - 2) + 1))
    x = np.concatenate([powers * np.float32(factor) for factor in (1, 1.4, 1.42, 1.99)])
    x = np.concatenate([x, -x, np.zeros(1, np.float32)])
    codes = PoT(bits).encode(x, scales=(np.array([beta], np.int32),)).codes
    return [((float(v), beta, bits), int(code)) for v, code in zip(x, codes, strict=True)]


lab.check(3, power_level, pot_cases(5, -7) + pot_cases(4, 0))

# %% [markdown]
# minilp takes no logarithm either. A float32 number *is* an exponent field above a mantissa, so one integer addition
# that carries out of the mantissa rounds the exponent, and one shift drops the mantissa:

# %%
print(inspect.getsource(rlog2))
x = np.exp2(rng.uniform(-20, 4, 2000)).astype(np.float32)
exponents = [power_level(float(v), 0, 6) - 16 for v in x]  # six bits: k from -15, -16 is zero
assert lab.same("frexp and minilp's add and shift", exponents, rlog2(x).clip(-16))

# %% [markdown]
# ## Logarithmic numbers
#
# Powers of two are coarse: from one to the next is a factor of two. A logarithmic number has $\gamma$ levels an octave:
# the top level is the largest magnitude $M$ itself, and each level below is smaller by $2^{-1/\gamma}$. There are
# $2^{b-1}$ levels. What is smaller than the smallest one becomes the smallest one; only zero is zero.
#
# > **Exercise 4** (★★, 4 lines). Write `log_level`: 0 for zero, else $\pm$ the level, which is $2^{b-1}$ for
# > $|x| = M$.
# >
# > - *Hint 1:* how many steps lie between $M$ and $|x|$? $\gamma \log_2 (M / |x|)$, rounded.
# > - *Hint 2:* the smallest level is 1.


# %% exercise=4 lines=4
def log_level(x: float, maximum: float, bits: int, gamma: int) -> int:
    """The signed level of x, counted up from the smallest; the maximum has the largest."""
    ### BEGIN SOLUTION
    if x == 0:
        return 0
    steps = round(gamma * math.log2(maximum / abs(x)))
    return int(math.copysign(max(1, 2 ** (bits - 1) - steps), x))
    ### END SOLUTION


# %%
def lns_cases(fmt: LNS) -> list:
    """The lesson's tensor and some random ones, and what minilp makes of them."""
    x = np.append(np.float32([1, 0.3, -0.07, 1e-3, -1e-6, 0]), rng.uniform(-1, 1, 20).astype(np.float32))
    codes = fmt.encode(x).codes
    return [((float(v), 1.0, fmt.bits, fmt.gamma), int(code)) for v, code in zip(x, codes, strict=True)]


lab.check(4, log_level, lns_cases(LNS(5, gamma=2)) + lns_cases(LNS(8, gamma=8)) + lns_cases(LNS(6, gamma=1)))

# %% [markdown]
# ## Rounding, and its bias
#
# A rounding is *unbiased* if its errors average out: the mean of $Q(x)$ is the mean of $x$. Take numbers spread evenly
# over one octave, from 1 to 2, and round each to 1 or to 2. Borders: $\sqrt 2$ (nearest in the logarithm) and 1.5
# (nearest in value). **By how many percent does the border $\sqrt 2$ change the mean?** Work it out before you run:
# which share of the numbers becomes 1?

# %%
my_guess = None

# %%
x = np.linspace(1, 2, DRAWS, endpoint=False, dtype=np.float32)
changes = {}
for border in ("log", "linear"):
    beta = (np.array([-6], np.int32),)  # powers up to 2
    rounded = PoT(5, threshold=border).encode(x, scales=beta).decode()
    changes[border] = 100 * (rounded.mean(dtype=np.float64) / x.mean(dtype=np.float64) - 1)
    print(f"border {border:6}: the mean changes by {changes[border]:+.2f} %")
lab.guess(my_guess, round(changes["log"], 2), "%")
assert abs(changes["log"] - 100 * ((3 - math.sqrt(2)) / 1.5 - 1)) < 0.01 and abs(changes["linear"]) < 0.01

# %% [markdown]
# With the border $\sqrt 2$ a share of $\sqrt 2 - 1$ becomes 1, the rest 2, so the mean becomes $3 - \sqrt 2 = 1.586$.
# But which border is biased depends on the data. Numbers spread evenly in the *logarithm* have the mean
# $1 / \ln 2 = 1.443$; the border $\sqrt 2$ makes it 1.5, the border 1.5 makes it $2 - \log_2 1.5 = 1.415$. Rounding to
# nearest is right on average for some distributions and wrong for others.
#
# ## Stochastic rounding
#
# Round up with a probability equal to the distance from the lower neighbour. Then the mean of $Q(x)$ is $x$ for *every*
# $x$: $\;(1-f) \cdot n + f \cdot (n + 1) = n + f$.
#
# > **Exercise 5** (★, 2 lines). Write `stochastic_round` for tensors: `x` in steps, `draw` evenly distributed
# > from 0 to 1 (1 excluded). It returns integers as floats.
# >
# > - *Hint:* `np.floor(x)`, and one more where the draw is below the fraction.


# %% exercise=5 lines=2
def stochastic_round(x: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """x rounded up with a probability equal to its fraction."""
    ### BEGIN SOLUTION
    below = np.floor(x)
    return below + (draw < x - below)
    ### END SOLUTION


# %%
quarter = np.array([2.25, 2.25, -2.25, -2.25, 3.0])
lab.check(5, stochastic_round, [
    ((quarter, np.array([0.2, 0.25, 0.7, 0.75, 0.0])), np.array([3.0, 2, -2, -3, 3])),
    ((np.array([[0.5]]), np.array([[0.499]])), np.array([[1.0]]))])

# %% [markdown]
# minilp's draws come from a *stream*: a name (seed, step, layer, role) from which every element's random bits are
# computed. No generator's state is carried along, so the same training step rounds the same way on any number of
# threads, and when it is run again. On the same draws, minilp and you agree:

# %%
stream = Stream(seed=1)
x = rng.uniform(0, 100, 2000).astype(np.float32)
draw = (stream.uint32(x.shape) >> 8) / 2**24
q = Fixed(8).encode(x, stream=stream, scales=(np.zeros(1, np.int32),))
assert lab.same("yours and minilp's", stochastic_round(x, draw), q.codes)

# %% [markdown]
# **When is it biased?** The rule holds for the number that is rounded, between two neighbours. It breaks in four ways,
# measured in the next two cells:
#
# 1. *The draw is made in the wrong domain.* Logarithmic numbers can draw by the fraction of the *exponent*. Then the
#    exponent is right on average, and the value is too large.
# 2. *There is no upper neighbour.* What saturates always goes down.
# 3. *There is no lower neighbour.* Without a zero to fall to, the smallest level takes all that is below it.
# 4. *What you need is not the number but a curved function of it.* The mean of $Q(x)^2$ is $x^2 + f(1-f)$.
#
# Between 1 and 2 the formats of this picture have the same two neighbours, 1 and 2. Only the rule differs.

# %%
points = np.linspace(1, 2, 25)
up_to_two = np.array([-6], np.int32)


def mean_of(fmt, scales: tuple, stream, value: float) -> float:
    """Mean of many codings of one value."""
    x = np.full(DRAWS // 20, value, np.float32)
    return float(fmt.encode(x, stream=stream, scales=scales).decode().mean(dtype=np.float64))


by_exponent, stream, step = LNS(5, gamma=1, draw="exponent"), Stream(seed=2), np.zeros(1, np.int32)
rules = {"PoT, to nearest": ("pot", PoT(5), (up_to_two,), None),
         "fixed point, drawn by distance": ("fixed", Fixed(5), (step,), stream),
         "LNS, drawn by exponent": ("lns", by_exponent, (np.full(1, 2.0**7, np.float32),), stream)}
means = {label: [mean_of(*rule[1:], value=p) / p for p in points] for label, rule in rules.items()}
lab.lines({label: (rule[0], points, means[label]) for label, rule in rules.items()},
          "x", "mean of Q(x), divided by x",
          "Drawn by distance the mean is right everywhere; drawn by exponent it is up to 6 % too large.")

# %%
def report(what: str, got: np.ndarray, wanted: float) -> float:
    """Print a mean beside what it should be; returned: how many standard errors they are apart."""
    error = got.std() / math.sqrt(got.size) + 1e-12
    print(f"{what:32} mean {got.mean():.5f} +- {error:.5f}, wanted {wanted:.5f}")
    return abs(got.mean() - wanted) / error


def coded(fmt, value: float, scales: tuple) -> np.ndarray:
    """Many random codings of one value, as float64."""
    q = fmt.encode(np.full(DRAWS, value, np.float32), stream=Stream(seed=3), scales=scales)
    return q.decode().astype(float)


largest = (np.ones(1, np.float32),)
assert report("fixed point, by distance", coded(Fixed(5), 2.25, (step,)), 2.25) < 4
assert report("PoT, by distance", coded(PoT(5), 1.25, (up_to_two,)), 1.25) < 4
assert report("1. LNS, by exponent", coded(by_exponent, 0.72, largest), 0.72) > 4
assert report("2. saturated", coded(Fixed(5), 15.5, (step,)), 15.5) > 4
assert report("3. no zero to fall to", coded(LNS(5, gamma=2, draw="exponent"), 1e-3, largest), 1e-3) > 4
assert report("4. squared", coded(Fixed(5), 2.25, (step,)) ** 2, 2.25**2) > 4

# %% [markdown]
# ## Range against resolution
#
# With $b$ bits there are fewer than $2^{b-1}$ positive values, whatever you do. On a logarithmic axis they can stand
# close together over few octaves, or far apart over many. For logarithmic numbers this is one equation:
#
# $$ \underbrace{\gamma}_{\text{levels an octave}} \times \underbrace{\text{octaves}}_{\text{range}} = 2^{b-1} - 1 $$
#
# and the largest relative error in range is half a step, $2^{1/(2\gamma)} - 1$. Eight bits:

# %%
for gamma in (1, 2, 4, 8, 16, 32):
    fmt = LNS(8, gamma=gamma)
    assert fmt.gamma * fmt.octaves == 127
    print(f"gamma {gamma:2}: {fmt.octaves:7.3f} octaves, error up to {100 * (2 ** (1 / (2 * gamma)) - 1):5.2f} %")

# %% [markdown]
# > **Exercise 6** (★★★, 4 lines). Errors of a backward pass spread over many octaves. Write `finest_gamma`: the
# > largest power of two $\gamma$ under which `bits` bits still span at least `octaves` octaves (1 if none does).
# >
# > - *Hint 1:* start from 1 and double as long as twice the $\gamma$ still spans enough.
# > - *Hint 2:* the span is $(2^{b-1} - 1) / \gamma$, a fraction: divide with `/`.


# %% exercise=6 lines=4
def finest_gamma(bits: int, octaves: float) -> int:
    """The finest lattice that spans so many octaves."""
    ### BEGIN SOLUTION
    gamma = 1
    while (2 ** (bits - 1) - 1) / (2 * gamma) >= octaves:
        gamma *= 2
    return gamma
    ### END SOLUTION


# %%
def gammas(bits: int, octaves: float) -> int:
    """The same by trying minilp's formats one by one."""
    candidates = [LNS(bits, gamma=2**i) for i in range(bits) if (2 ** (bits - 1) - 1) / 2**i < 253]
    return max([fmt.gamma for fmt in candidates if fmt.octaves >= octaves], default=1)


lab.check(6, finest_gamma, [((bits, octaves), gammas(bits, octaves)) for bits in (5, 6, 7, 8)
                            for octaves in (3, 3.75, 3.9, 7, 7.5, 12, 15.875, 16, 31.75, 100)])

# %% [markdown]
# The same trade for all four formats: code numbers of every size below 1 and see how large the error is, relative to
# the number. **How many octaves below 1 does five-bit fixed point have before everything becomes zero (an error of 100
# percent)?**

# %%
my_guess = None

# %%
octaves = np.arange(-17, 1)


def relative_error(fmt, octave: int) -> float:
    """Root mean square of (Q(x) - x) / x over the octave that ends at 2^octave; the maximum is 1."""
    x = np.exp2(np.linspace(octave - 1, octave, 1000)).astype(np.float32)
    decoded = fmt.encode(x, scales=fmt.scales_for(np.ones(1, np.float32))).decode()
    return float(np.sqrt(np.mean((decoded.astype(float) / x - 1) ** 2)))


errors = {name: 100 * np.array([relative_error(fmt, octave) for octave in octaves])
          for name, fmt in FIVE_BITS.items()}
lab.guess(my_guess, int(-octaves[errors["fixed"] == 100].max()), "octaves")
curves = {str(fmt): (name, np.exp2(octaves), errors[name].clip(max=200)) for name, fmt in FIVE_BITS.items()}
lab.lines(curves, "upper end of the octave (largest magnitude of the tensor: 1)",
          "error, percent of x (cut off at 200)",
          "Fixed point and the small float lose small numbers; logarithmic formats keep the error level.",
          logx=True, logy=True)

# %% [markdown]
# Powers of two reach 14 octaves down with an error of 20 percent, all the way. $\gamma = 2$ halves that error and the
# range with it; below its range everything is *too large*, because nothing becomes zero. The small float errs by 5
# percent in its two upper octaves and has nothing left after five. Fixed point is as exact at the top, gets worse at
# once, and is gone after four. Weights and activations need a few octaves; errors of a backward pass need many. That is
# why the next lessons look at each tensor on its own.

# %% [markdown]
# ## The experiment: updates smaller than half a step
#
# Weights are stored in 8-bit fixed point with steps of 1/128. They start at 0.5, and each of 256 training steps adds
# $2^{-11}$, a sixteenth of a step. In real numbers they end at 0.625. **Where do they end if every sum is rounded to
# nearest?**

# %%
my_guess = None

# %%
WEIGHTS, STEPS, UPDATE = (256 if lab.fast() else 4096), 256, np.float32(2.0**-11)
fmt, scales = Fixed(8), (np.array([-7], np.int32),)
paths = {name: [np.full(WEIGHTS, 0.5, np.float32)] for name in ("float32", "to nearest", "stochastic")}
for number in range(STEPS):
    moved = {name: path[-1] + UPDATE for name, path in paths.items()}
    stream = Stream(seed=4, step=number, role="update")
    paths["float32"].append(moved["float32"])
    paths["to nearest"].append(fmt.encode(moved["to nearest"], scales=scales).decode())
    paths["stochastic"].append(fmt.encode(moved["stochastic"], scales=scales, stream=stream).decode())
lab.guess(my_guess, float(paths["to nearest"][-1].mean()))
ends = {label: [float(w.mean(dtype=np.float64)) for w in path] for label, path in paths.items()}
lab.lines({"float32": ("fp32", range(STEPS + 1), ends["float32"]),
           "fixed point, stochastic": ("fixed", range(STEPS + 1), ends["stochastic"]),
           "fixed point, to nearest": ("fixed", range(STEPS + 1), ends["to nearest"])},
          "training step", f"mean of {WEIGHTS} weights",
          "To nearest, the weights never move; drawn, their mean follows float32.", markers=False)

# %%
final = paths["stochastic"][-1].astype(float)
standard_error = final.std() / math.sqrt(WEIGHTS)
print(f"float32 {ends['float32'][-1]}, to nearest {ends['to nearest'][-1]}, "
      f"stochastic {final.mean():.5f} +- {standard_error:.5f}; single weights scatter by {final.std():.3f}")
assert ends["float32"][-1] == 0.625 and ends["to nearest"][-1] == 0.5
assert abs(final.mean() - 0.625) < 4 * standard_error

# %% [markdown]
# Unbiased does not mean exact: a single weight wanders by some steps around its goal. The noise is the price, and it
# averages out over many weights, or many training steps.
#
# ## Break it
#
# *Cut off instead of rounding.* A right shift drops bits, which rounds towards minus infinity. Here updates have mean
# zero, and the weights should stay where they are:

# %%
updates = rng.normal(0, 1 / 128, (STEPS, WEIGHTS))
cut, nearest = np.full(WEIGHTS, 0.0), np.full(WEIGHTS, 0.0)
for update in updates:
    cut, nearest = np.floor((cut + update) * 128) / 128, np.rint((nearest + update) * 128) / 128
print(f"true mean {updates.sum(0).mean():+.4f}, "
      f"to nearest {nearest.mean():+.4f}, cut off {cut.mean():+.4f}")
assert cut.mean() < -0.9 and abs(nearest.mean()) < 0.05

# %% [markdown]
# Half a step is lost in each of the 256 steps: $256 \cdot 1/256 = 1$ in all. Kernels that shift products to the *right*
# before they add them drift like this; minilp shifts to the left, adds, and rounds once (lesson 02).
#
# *Share one draw among all weights*, to save random bits. Each weight is still unbiased, but they err together, and
# their mean is no better than one alone:

# %%
trials = [Stream(seed=5, step=i).uint32(WEIGHTS) / 2**32 for i in range(400)]
quarter = np.full(WEIGHTS, 0.25)
own = np.std([stochastic_round(quarter, draw).mean() for draw in trials])
shared = np.std([stochastic_round(quarter, np.full(WEIGHTS, draw[0])).mean() for draw in trials])
print(f"the mean of {WEIGHTS} weights scatters by {own:.4f} with a draw each, by {shared:.4f} with one for all")
assert shared > 0.5 * math.sqrt(WEIGHTS) * own

# %% [markdown]
# ## Differences from the papers
#
# Tags: *verified*: read in the source. *recalled*: from memory, not confirmed. *derived*: computed here or forced by
# what is verified.
# *default*: our choice where nothing is known. What is recalled or default is our assumption, not the papers' result.
#
# | what | the source | here | tag | effect |
# |---|---|---|---|---|
# | PoT: the product | INT4 additions and a 1-bit XOR (Liu et al. 2023, abstract) | the same | verified | five bits: a sign and four of exponent (derived) |
# | PoT: border between powers | not read | $\sqrt 2$; `threshold="linear"` gives 1.5 | recalled | on even data +5.7 % of the mean, measured above |
# | PoT: scale | adaptive and layer-wise (abstract); the equation was not read | $\beta = \mathrm{round}(\log_2 \max) - k_{\max}$ | recalled | the maximum is on the top code, nothing saturates |
# | PoT: zero | not read | the code left over; below the smallest power after rounding | default | `underflow="half"` keeps more |
# | LNS: the quantizer | not read (Zhao et al. 2022: abstracts only) | rounded exponent, clamped at both ends | recalled | what is tiny becomes the smallest level |
# | LNS: zero | not read | a flag beside the bits; `zero="code"` spends a level | default | one stored bit |
# | LNS: the random draw | stochastic rounding of the exponent, in the theory | by distance; `draw="exponent"` is the other | recalled | up to 6 % of the mean at $\gamma = 1$, measured above |
# | ranges and errors by $\gamma$ | not read | the equations above | derived | they hold for any 8-bit logarithmic format |
#
# Fixed point is textbook material; small floats follow the OCP specifications named in `minilp/formats/minifloat.py`.
#
# ## Summary
#
# 1. A code is an integer; a format and a scale say what it stands for.
# 2. Fixed point is even in value, logarithmic formats are even in the logarithm, small floats are a mixture.
# 3. Whether rounding to nearest is biased depends on the data; it swallows updates below half a step.
# 4. Drawing by distance is unbiased for every number between two neighbours, and only there.
# 5. Levels an octave times octaves is fixed by the bits: reach and resolution are bought from the same purse.
#
# ## Questions
#
# 1. *(code)* Seven bits: find the $\gamma$ with which `LNS` has the smallest mean square error on 10 000 normal
#    numbers. Why is it neither the smallest nor the largest?
# 2. *(code)* Write `fixed_code` for a scale that is any float, not a power of two. How much smaller does the error of
#    a normal tensor become?
# 3. *(thought)* Two numbers are rounded with the *same* draw and then multiplied. Is the product unbiased? And with a
#    draw each?
# 4. *(thought)* ReLU makes half of the activations zero. Which of the four formats would suffer if it had no zero?
#
# Next: lesson 02 multiplies powers of two by adding exponents.
