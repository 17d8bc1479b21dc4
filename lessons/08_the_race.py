# %% [markdown]
# # Lesson 08: the race
#
# Afterwards you can **compare** number formats on one network without fooling yourself; **say** what accuracy, step
# time, bits and energy measure, and what they leave out; **read** recorded trainings; and **plan and run** an experiment
# of your own that can be interrupted, continued and believed.
#
# *You need:* lesson 01; lessons 02 to 04 say how the racers work inside. *Time:* 60 to 75 minutes to read and solve; the
# machine takes three to four minutes. *Code it walks through:* `minilp/results/`, `minilp/energy/`.

# %%
import inspect
import json
import math
import pathlib
import tempfile
import time

import numpy as np

import minilp
from minilp import data, energy, figures, results
from minilp import lessons as lab
from minilp.energy.events import Product
from minilp.formats import LNS, MLS, MX, Fixed, Minifloat, PoT
from minilp.nn import functional
from minilp.results import tables
from minilp.results.plan import make_plan
from minilp.training.build import build_model, build_optimizer
from minilp.training.config import TrainConfig


def there(name: str) -> bool:
    """Whether a data set is on this machine."""
    try:
        return bool(data.load(name))
    except (FileNotFoundError, ValueError):
        return False


DATA = "cifar10" if not lab.fast() and there("cifar10") else "shapes10"
IMAGES, EPOCHS = (100, 1) if lab.fast() else (4000, 3)  # of each training
rng = np.random.default_rng(0)
print(f"minilp {minilp.__version__}, numpy {np.__version__}; "
      f"the race is run on {IMAGES} images of {DATA}, {EPOCHS} epochs")

# %% [markdown]
# CIFAR-10 is not downloaded by itself: `minilp data cifar10 --root DIR` fetches it, `MINILP_DATA=DIR` says where it is.
# Without it the race is run on `shapes10`, which is built in and easier.
#
# ## Symbols
#
# | symbol | meaning | in code | shape |
# |---|---|---|---|
# | $b$ | bits of one code, sign included | `fmt.bits` | a number |
# | $\bar b$ | bits an element of a tensor takes with its share of the scales | `q.nbits / q.size` | a number |
# | MAC | one multiply-accumulate: a product, added to a sum | `counts.total_macs()` | a number |
# | $p_o$, $n_o$ | price of the operation $o$ in picojoules; how often it is executed | `prices.find(o).value`, `counts.operations()[o]` | numbers |
# | $r_i$ | step time in round $i$, divided by that of float32 in the same round | | one a round |
# | $a_s$ | test accuracy after the last epoch, seed $s$ | `record.score` | one a seed, percent |
# | gap | mean accuracy minus that of float32 | | points |
#
# A *recipe* says which format plays which role in a training. A *record* is the result of one training: a JSON file with
# its whole configuration. A *seed* draws initial weights and the order of the images. A *budget* is what two trainings
# must share to be comparable: data, network, epochs, batches, schedule.

# %% [markdown]
# ## One number by hand
#
# What does one image cost the network in a training step, in the products alone? `small_cnn` takes 2 802 304 MACs
# forward. Each layer has two more products of the same size on the way back, but the first convolution (442 368 of them)
# needs no gradient of the image. So a step takes $3 \cdot 2\,802\,304 - 442\,368 = 7\,964\,544$ MACs an image.
#
# A float32 MAC is a multiplication and an addition, 3.7 + 0.9 = 4.6 pJ (Horowitz 2014, 45 nm: *verified*, as quoted
# elsewhere). That makes 36.6 µJ. A MAC on five-bit powers of two is a 4-bit addition, an XOR of the signs and a 32-bit
# addition: 0.015 + 0.14 = 0.155 pJ by the table of its paper (*verified*; the XOR is not in it and charged nothing,
# *default*). That makes 1.23 µJ: 30 times less. minilp counts the operations of a real step:

# %%
table = energy.load_prices("als-potq")
for name in ("fp32", "potq"):
    counts, executed = energy.count_named("small_cnn", minilp.recipe.get(name), 64)
    priced = energy.price(counts, table)
    macs = counts.total_macs() / counts.images
    products, whole = (pj / counts.images / 1e6 for pj in (
        priced.total("forward", "input_grad", "weight_grad"), priced.picojoules))
    print(f"{name}: {macs:,.0f} MACs an image, {products:.2f} uJ; with coding, scaling, norms and "
          f"optimizer {whole:.2f} uJ")
    assert executed and macs == 3 * 2_802_304 - 442_368

# %% [markdown]
# The products shrink by 30, the whole step by less: the rest (batch norm, optimizer, quantisers) stays float32.
#
# ## What is measured: bits
#
# A 4-bit code does not take 4 bits. Somebody stores the scale. In MXFP4, blocks of 32 elements along a row share a scale
# of 8 bits; the last block of a row may be shorter, and has a scale all the same.
#
# > **Exercise 1** (★, 2 lines). Write `mean_bits`: bits an element takes, scales included, in rows of `length` elements
# > cut into blocks of `block`.
# >
# > - *Hint 1:* `math.ceil(length / block)` blocks, each with one scale.
# > - *Hint 2:* the scales' bits are spread over `length` elements.


# %% exercise=1 lines=2
def mean_bits(element: int, scale: int, length: int, block: int) -> float:
    """Bits of an element with its share of the scales."""
    ### BEGIN SOLUTION
    blocks = math.ceil(length / block)
    return element + scale * blocks / length
    ### END SOLUTION


# %%
def measured_bits(length: int) -> float:
    """Of rows in MXFP4, as minilp stores them."""
    q = MX("e2m1").encode_along(rng.standard_normal((4, length)).astype(np.float32), 1)
    return q.nbits / q.size


lab.check(1, mean_bits, [((4, 8, length, 32), measured_bits(length))
                         for length in (32, 64, 40, 8, 16, 4, 128)])

# %% [markdown]
# What do the racers' formats take for the activations of a convolution, 16 x 16 pixels in each map? **`mls` has one
# more scale of 8 + 1 bits for each map of each image. How many bits an element is that, to two decimals, if an element
# has 4 bits?**

# %%
my_guess = None

# %%
x = np.maximum(rng.standard_normal((8, 16, 16, 16)), 0).astype(np.float32)
for fmt in (PoT(5), PoT(4), MLS(2, 1), LNS(8, gamma=8), Minifloat(4, 3), Fixed(8)):
    q = fmt.encode(x)
    print(f"{fmt!s:24} {fmt.bits} bits a code, {q.nbits / q.size:.3f} an element")
    if isinstance(fmt, MLS):
        lab.guess(my_guess, round(q.nbits / q.size, 2), "bits")

# %% [markdown]
# (LNS keeps a flag for zero beside its 8 bits: our assumption, see lesson 04.)
#
# ## What is measured: energy
#
# Energy is counting: how often is each operation executed, times what one costs. Who says what one costs? A list of
# prices, where every number has a source and a tag.
#
# > **Exercise 2** (★, 1 line). Write `cost`: the sum of numbers of operations times their prices. Both are dicts with
# > operations' names as keys. An operation without a price must be an error, never free.
# >
# > - *Hint:* `prices[name]` raises KeyError by itself where there is no price; `prices.get(name, 0)` would hide it.


# %% exercise=2 lines=1
def cost(operations: dict, prices: dict) -> float:
    """What the operations cost together."""
    ### BEGIN SOLUTION
    return sum(number * prices[name] for name, number in operations.items())
    ### END SOLUTION


# %%
def refuses(operations: dict, prices: dict) -> str:
    """What `cost` does: its result in words, or the operation that it misses."""
    try:
        return f"{cost(operations, prices)}"
    except KeyError as missing:
        return f"no price for {missing}"


lab.check(2, refuses, [
    (({"mul": 3, "add": 2}, {"add": 0.5, "mul": 4, "xor": 9}), "13.0"), (({"xor": 7}, {"xor": 0.0}), "0.0"),
    (({"add": 1, "shift": 2}, {"add": 0.25}), "no price for 'shift'"), (({"add": 4}, {"add": 0.25}), "1.0")])

# %%
lists = {name: energy.load_prices(name) for name in ("horowitz-45nm", "als-potq")}
MACS = {"float32": {"fp32_mul": 1, "fp32_add": 1},
        **{str(fmt): fmt.cost(fmt) for fmt in (PoT(5), MLS(2, 1), MX("e2m1"), Fixed(8), Minifloat(4, 3))}}
for name, operations in MACS.items():
    each = [cost(operations, {o: prices.find(o).value for o in operations}) for prices in lists.values()]
    tags = sorted({prices.find(o).provenance for o in operations for prices in lists.values()})
    print(f"{name:20} {' + '.join(operations):30} {each[0]:6.3f} or {each[1]:6.3f} pJ  ({', '.join(tags)})")

# %% [markdown]
# The first column of numbers is by `horowitz-45nm`, minilp's default list, the second by the ALS-PoTQ paper's table. A
# width that a list lacks is charged as the next wider one (an INT4 addition as INT8 in the first list), which is our
# rule. They agree on the order of things, not on the numbers. None of this is what *this* machine burns: it has a
# float32 multiplier anyway, and emulates the rest.
#
# ## What is measured: time
#
# Time is what everybody asks for and what is easiest to get wrong. Other work on the machine comes and goes, so two
# measurements made one after the other compare the neighbours. Let the racers take turns, one step each, and compare
# *within a round*.
#
# > **Exercise 3** (★, 2 lines). Write `median_ratio(mine, theirs)`: two lists of step times, round by round. Return the
# > median of the rounds' ratios.
# >
# > - *Hint:* divide two arrays, then `np.median`. Not the ratio of two medians: that mixes rounds.


# %% exercise=3 lines=2
def median_ratio(mine: list, theirs: list) -> float:
    """The median of mine / theirs, round by round."""
    ### BEGIN SOLUTION
    ratios = np.array(mine) / np.array(theirs)
    return float(np.median(ratios))
    ### END SOLUTION


# %%
lab.check(3, median_ratio, [(([2.0, 8, 3], [1.0, 4, 1]), 2.0), (([1.0], [4.0]), 0.25),
                            (([1.0, 2, 30, 4], [1.0, 1, 10, 8]), 1.5), (([1.0, 10, 100], [2.0, 10, 50]), 1.0)])

# %% [markdown]
# ## The racers
#
# One network, `small_cnn` (three convolutions with batch norm and a linear layer), eight recipes. The optimizer and its
# learning rate are the recipe's own: Madam for `lns-madam`, SGD for the others.

# %%
RACERS = {"fp32": ("fp32", "fp32", []), "potq": ("pot", "potq", []),
          "potq, 4 bits": ("pot", "potq", ["pot.bits=4"]),
          "mls": ("mls", "mls", []), "lns-madam": ("lns", "lns-madam", []), "fp8": ("minifloat", "fp8", []),
          "int8": ("fixed", "int8", []), "mxfp4": ("mx", "mxfp4", [])}  # label: style, recipe, settings
if lab.fast():
    RACERS = {label: RACERS[label] for label in ("fp32", "potq")}
train_set, _ = data.load(DATA)


def configured(label: str) -> TrainConfig:
    """The training of a racer."""
    _, recipe, settings = RACERS[label]
    return TrainConfig.create(DATA, "small_cnn", recipe, settings=settings, batch_size=64)


class Racer:
    """A model with its optimizer, and one batch that it is trained on again and again."""

    def __init__(self, label: str) -> None:
        config = configured(label)
        minilp.manual_seed(0)
        self.model = build_model(config, config.task.describe(train_set)).train()
        self.optimizer = build_optimizer(config, self.model)
        self.x, self.y = next(data.Loader(train_set, batch_size=64, seed=0).epoch(0))

    def step(self) -> None:
        """One training step."""
        self.optimizer.zero_grad()
        functional.cross_entropy(self.model(minilp.Tensor(self.x)), self.y).backward()
        self.optimizer.step()


# %% [markdown]
# Their step times on this machine, on one thread, in processor time. **Which is the fastest: the position in the list of
# racers, float32 being 0?**

# %%
my_guess = None

# %%
ROUNDS = 3 if lab.fast() else 15
racers, times = {label: Racer(label) for label in RACERS}, {label: [] for label in RACERS}
threads = minilp.kernels.threads()
minilp.set_num_threads(1)
for number in range(ROUNDS + 1):
    for label, racer in racers.items():
        began = time.process_time()
        racer.step()
        if number:  # the first round warms up
            times[label].append(time.process_time() - began)
minilp.set_num_threads(threads)
ratios = {label: median_ratio(mine, times["fp32"]) for label, mine in times.items()}
lab.guess(my_guess, int(np.argmin(list(ratios.values()))))
for label, ratio in ratios.items():
    print(f"{label:14} {ratio:5.2f} of a float32 step")

# %% [markdown]
# This is a small network on one thread, on a processor that has good multipliers anyway. Fewer bits by themselves do not
# promise a faster step: products are only a part of it, coding is added, and the kernels decide. What they do save is
# memory and, on hardware built for them, energy. minilp's own benchmark, `minilp bench step`, does the same with a process for each system, against
# torch. Its recorded rows for ResNet-20 are in `lessons/results`:

# %%
folder = lab.results_folder()
path = folder / "bench-step-resnet20.json"
for row in json.loads(path.read_text()) if path.exists() else []:
    name = ":".join([row["recipe"], *row["settings"]])
    print(f"{name:18} kernels {row['kernels']:6} {row['isa']:5} {row['ratio']:.2f} ({row['ratio_low']:.2f} to "
          f"{row['ratio_high']:.2f}) of torch's float32 step, {row['peak_bytes'] / 1e6:.0f} MB")

# %% [markdown]
# And the bits: a real step of each racer, and the mean over all factors of its products, scales included. What is float32
# counts 32 (`mls` and `lns-madam` keep the first convolution and the last layer in float32).

# %%
def racer_bits(racer: Racer) -> float:
    """Mean bits of an element, over the factors of all products in one training step."""
    with energy.count(racer.model) as counts:
        racer.step()
    factors = [(factor, times) for event, times in counts.tally.items() if isinstance(event, Product)
               for factor in (event.first, event.second)]
    return sum(f.nbits * times for f, times in factors) / sum(f.elements * times for f, times in factors)


bits = {label: racer_bits(racer) for label, racer in racers.items()}
print({label: round(value, 2) for label, value in bits.items()})

# %% [markdown]
# ## What is measured: accuracy
#
# The same recipe with another seed ends somewhere else. A gap means something only if it is larger than that scatter.
# With $n$ seeds of scatter $\sigma$ a mean is uncertain by its *standard error* $\sigma / \sqrt n$, and a difference of
# two means by $\sqrt{\sigma_1^2 / n_1 + \sigma_2^2 / n_2}$.
#
# > **Exercise 4** (★★, 3 lines). Write `gap(ours, theirs)`: two lists of accuracies, each of at least two seeds. Return
# > a tuple: the difference of their means, and its standard error.
# >
# > - *Hint 1:* `np.var(x, ddof=1)` is $\sigma^2$ estimated from a sample: the squares are divided by $n - 1$.
# > - *Hint 2:* the lists may differ in length.


# %% exercise=4 lines=3
def gap(ours: list, theirs: list) -> tuple:
    """Difference of means, and its standard error."""
    ### BEGIN SOLUTION
    difference = np.mean(ours) - np.mean(theirs)
    error = np.sqrt(np.var(ours, ddof=1) / len(ours) + np.var(theirs, ddof=1) / len(theirs))
    return float(difference), float(error)
    ### END SOLUTION


# %%
lab.check(4, gap, [(([71.0, 73.0], [75.0, 75.0]), (-3.0, 1.0)), (([4.0, 4.0, 4.0], [1.0, 1.0]), (3.0, 0.0)),
                   (([6.0, 14.0], [1.0, 7.0]), (6.0, 5.0)),
                   (([0.0, 3.0, 6.0], [1.0, 3.0]), (1.0, 2.0))])

# %% [markdown]
# ## The race
#
# A *plan* lists trainings in the words of `minilp train`; a *sweep* trains what is missing, each training in a process
# of its own, and records it. What is recorded is found by its configuration, so the same plan twice trains nothing
# twice. First one seed. (Two trainings at a time; the time is printed.)

# %%
temporary = tempfile.TemporaryDirectory()
here = pathlib.Path(temporary.name)


def race(seeds: list) -> results.Plan:
    """The plan of the race."""
    return make_plan({
        "title": "The race",
        "defaults": {"data": DATA, "model": "small_cnn", "epochs": EPOCHS, "batch_size": 64,
                     "train_images": IMAGES, "seeds": seeds},
        "runs": [{"label": label, "recipe": recipe, "set": settings}
                 for label, (_, recipe, settings) in RACERS.items()]}, "race")


def run(plan) -> None:
    """Train what a plan lists and nobody recorded; print what is there then."""
    began = time.perf_counter()
    found = minilp.sweep(plan, results=here / "results", runs=here / "runs", jobs=2, threads=1, quiet=True)
    for row in found.rows:
        print(f"{row['name']:62} {row['state']:9} {row['score']:.2f}")
    print(f"{time.perf_counter() - began:.0f} s")


run(race([0]))

# %% [markdown]
# Then the same plan with two seeds: what is recorded is not trained again.

# %%
before = {path.name: path.stat().st_mtime_ns for path in (here / "results").glob("*.json")}
SEEDS = [0] if lab.fast() else [0, 1]
run(race(SEEDS))
after = {path.name: path.stat().st_mtime_ns for path in (here / "results").glob("*.json")}
assert len(after) == len(RACERS) * len(SEEDS) and {name: after[name] for name in before} == before

# %% [markdown]
# `results.read` reads a folder of records, and `tables.planned` puts together those of one row of a plan. Two rows may
# stand in one table only if their budgets are equal; this is what minilp compares:

# %%
print(inspect.getsource(tables.budget))
records = results.read(here / "results")
lines = {line.label: line for line in (tables.planned(row, records) for row in race(SEEDS).rows)}
assert len({tables.budget(line.config) for line in lines.values()}) == 1
standings = {label: {"accuracy": float(np.mean(line.scores)), "low": min(line.scores),
                     "high": max(line.scores), "energy": line.mean_of("energy_pj_per_image") / 1e6,
                     "bits": bits[label], "time": ratios[label]} for label, line in lines.items()}
print(f"{'':14} accuracy %  gap, points (its error)  bits  uJ an image  step, of fp32's")
for label, row in standings.items():
    apart = "" if label == "fp32" or len(SEEDS) < 2 else "{:+.2f} ({:.2f})".format(
        *gap(lines[label].scores, lines["fp32"].scores))
    print(f"{label:14} {row['accuracy']:10.2f}  {apart:>22}  {row['bits']:4.1f}  {row['energy']:11.2f}  "
          f"{row['time']:15.2f}")

# %% [markdown]
# Two seeds give a poor idea of the scatter, so the errors in brackets are themselves uncertain. And four-bit powers of two
# take as much energy as five-bit ones, although they add narrower exponents: the default price list has no addition
# below eight bits, and charges both as one of eight. One chart of all four measures:

# %%
def chart(points: dict, styles: dict, note, ylabel: str, caption: str) -> lab.Picture:
    """Accuracy against energy, a point a recipe, whiskers from the worst seed to the best."""
    figure = figures.new(9, 4)
    axes = figure.subplots()
    drawn: set = set()
    for label, row in points.items():
        look = figures.style(styles[label])
        whiskers = [[row["accuracy"] - row["low"]], [row["high"] - row["accuracy"]]]
        hollow = {"markerfacecolor": "white"} if styles[label] in drawn else {}  # a format that comes again
        axes.errorbar(row["energy"], row["accuracy"], whiskers, color=look["color"], linestyle="none",
                      marker=look["marker"] or "*", markersize=9, capsize=4, label=note(label, row), **hollow)
        drawn.add(styles[label])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="energy of a training image, uJ (operations only, logarithmic)", ylabel=ylabel)
    axes.margins(x=0.1, y=0.1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return lab.Picture(figure, caption)


STYLES = {label: style for label, (style, _, _) in RACERS.items()}
chart(standings, STYLES,
      lambda label, row: f"{label}: {row['bits']:.1f} bits, {row['time']:.1f} x fp32's step",
      f"test accuracy on {DATA}, %",
      "Up and to the left is better; what has nothing above and left of it is not beaten.")

# %% [markdown]
# A recipe is *beaten* if another takes no more energy, is no less accurate, and is better in one of the two. Those that
# nobody beats form the *Pareto front*: which of them to choose is a question of taste, the others are out.
#
# > **Exercise 5** (★★, 6 lines). Write `front(points)`: a dict of name -> (energy, accuracy) to the list of names that
# > nobody beats, in the dict's order.
# >
# > - *Hint 1:* write down when `(e, a)` beats `(energy, accuracy)`: `e <= energy and a >= accuracy and` one of them
# > differs.
# > - *Hint 2:* `any(... for e, a in points.values())` asks everybody. Two equal points do not beat each other.


# %% exercise=5 lines=6
def front(points: dict) -> list:
    """Names of the points that no other point beats."""
    ### BEGIN SOLUTION
    unbeaten = []
    for name, point in points.items():
        if not any(e <= point[0] and a >= point[1] and (e, a) != point for e, a in points.values()):
            unbeaten.append(name)
    return unbeaten
    ### END SOLUTION


# %%
lab.check(5, front, [
    (({"a": (1, 50), "b": (2, 60), "c": (3, 55), "d": (2, 59)},), ["a", "b"]),
    (({"a": (1, 1), "b": (1, 1)},), ["a", "b"]), (({"a": (5, 9), "b": (5, 8), "c": (6, 9)},), ["a"]),
    (({"a": (9, 9), "b": (1, 1), "c": (5, 5)},), ["a", "b", "c"]),
    (({"a": (2, 3)},), ["a"])])
print("nobody beats:", front({label: (row["energy"], row["accuracy"]) for label, row in standings.items()}))

# %% [markdown]
# ## The recorded runs
#
# Larger trainings take hours, so they are recorded once, in `lessons/results`, and everybody reads them. Nothing below
# is typed by hand: it shows whatever is recorded in this checkout. The plan of the main comparison is
# `lessons/plans/headline.json`:

# %%
recorded = results.read(folder)
headline = results.load_plan(folder.parent / "plans" / "headline.json")
print(headline.title, "-", headline.about)
for row in headline.rows:
    line = tables.planned(row, recorded)
    scores = f"{np.mean(line.scores):.2f} %" if line.scores else tables.NOT_RUN
    print(f"{line.label:14} {len(line.records)} of {len(line.asked)} seeds, {line.config.epochs} epochs: "
          f"{scores}")

# %% [markdown]
# Some recipes have a batch size of their own here, so these are races of equal epochs, not of equal budgets in the
# strict sense above. Take the contest (data, network, epochs) in which the most recipes are recorded under their defaults:

# %%
contests: dict = {}
for line in tables.unplanned(recorded):
    config = line.config
    if line.scores and line.label == config.recipe.name and config.task.unit == "image":
        key = (config.data_name, config.model, config.epochs, config.train_images or "all",
               str(config.model_options))
        contests.setdefault(key, {})[line.label] = line
for key, found in contests.items():
    print(*key[:3], "epochs,", key[3], "images:", *found)
print(f"{len(recorded)} trainings recorded in all; `minilp results` writes them into RESULTS.md")

# %%
FAMILY = {"fp32": "fp32", "torch-fp32": "fp32", "potq": "pot", "mls": "mls", "lns-madam": "lns",
          "lns-madam-v1": "lns", "fp8": "minifloat", "int8": "fixed"}


def energy_of(line: tables.Line) -> float:
    """Microjoules of a training image: as recorded, or counted now where a record is older than the counter."""
    noted = line.mean_of("energy_pj_per_image")
    if noted is None:
        counts, _ = energy.count_named(line.config.model, line.config.recipe, line.config.batch_size,
                                       line.config.model_options)
        noted = energy.price(counts, energy.load_prices()).picojoules / counts.images
    return noted / 1e6


picture = None
if contests:
    key, found = max(contests.items(), key=lambda item: (len(item[1]), item[0][2]))
    points = {label: {"accuracy": float(np.mean(line.scores)), "low": min(line.scores),
                      "high": max(line.scores), "energy": energy_of(line)} for label, line in found.items()}
    picture = chart(points, {label: FAMILY.get(label, "mx") for label in points},
                    lambda label, row: f"{label}: {row['accuracy']:.1f} %, {len(found[label].scores)} seeds",
                    f"test accuracy on {key[0]}, %",
                    f"{key[1]}, {key[2]} epochs: recorded trainings, default recipes.")
picture

# %% [markdown]
# ## An experiment of your own
#
# A question first: *how few bits do powers of two need?* Then what could answer it: the same training with 3, 4, 5 and 6
# bits, on seeds that were fixed before. Then a plan.
#
# > **Exercise 6** (★★, 7 lines). Write `bits_plan(widths, seeds)`: a plan as a dict, for `small_cnn` on `shapes10`, one
# > epoch, 1000 training images, batches of 32; for each width one run of the recipe `potq` with the setting
# > `pot.bits=WIDTH`, and at the end one of `fp32`. All with the given seeds.
# >
# > - *Hint 1:* keys of a plan: `"defaults"`, a dict that holds for all runs, and `"runs"`, a list of dicts. Keys inside
# > them: `data`, `model`, `epochs`, `train_images`, `batch_size`, `seeds`, `recipe`, `set` (a list of strings).
# > - *Hint 2:* the plan of the race above is one.


# %% exercise=6 lines=7
def bits_plan(widths: list, seeds: list) -> dict:
    """A plan: powers of two of several widths, and float32."""
    ### BEGIN SOLUTION
    defaults = {"data": "shapes10", "model": "small_cnn", "epochs": 1, "train_images": 1000, "batch_size": 32,
                "seeds": seeds}
    runs = [{"recipe": "potq", "set": [f"pot.bits={width}"]} for width in widths]
    return {"defaults": defaults, "runs": [*runs, {"recipe": "fp32"}]}
    ### END SOLUTION


# %%
def planned(widths: list, seeds: list) -> tuple:
    """Names of the trainings that `bits_plan` asks for, in their order."""
    return tuple(results.record_name(run.config) for run in make_plan(bits_plan(widths, seeds)).runs)


START, REST = "shapes10-small_cnn-", "-e1-n1000-b32"
lab.check(6, planned, [
    (([4], [0]), (f"{START}potq{REST}-pot.bits=4-s0", f"{START}fp32{REST}-s0")),
    (([3, 6], [5, 7]), tuple(f"{START}{recipe}-s{seed}" for recipe in (
        f"potq{REST}-pot.bits=3", f"potq{REST}-pot.bits=6", f"fp32{REST}") for seed in (5, 7)))])

# %% [markdown]
# A plan is a JSON file; anybody can run it again. Saved as `bits.json`, `minilp sweep bits.json --list` says what is
# recorded and what is missing, and `minilp sweep bits.json` trains it. Ctrl-C saves the trainings under way, and the
# same command goes on with them. **How many bits are needed to come within five points of six bits? A guess:**

# %%
my_guess = None

# %%
WIDTHS = [3] if lab.fast() else [3, 4, 5, 6]
plan = bits_plan(WIDTHS, [0] if lab.fast() else [0, 1])
plan["defaults"].update({"train_images": 100} if lab.fast() else {"train_images": 2000, "epochs": 3})
(here / "bits.json").write_text(json.dumps(plan, indent=1))
listed = minilp.sweep(here / "bits.json", results=here / "results", runs=here / "runs", only_list=True)
print({row["state"] for row in listed.rows}, len(listed.rows), "trainings")
run(here / "bits.json")

# %%
records = results.read(here / "results")
mine = [tables.planned(row, records) for row in results.load_plan(here / "bits.json").rows]
by_width = {width: float(np.mean(line.scores)) for width, line in zip(WIDTHS, mine, strict=False)}
enough = min(width for width in WIDTHS if by_width[width] >= by_width[WIDTHS[-1]] - 5)
lab.guess(my_guess, enough, "bits")
lab.lines({"powers of two": ("pot", WIDTHS, list(by_width.values())),
           "float32": ("fp32", WIDTHS, [float(np.mean(mine[-1].scores))] * len(WIDTHS))},
          "bits of weights, activations and errors", "test accuracy on shapes10, %",
          "Three bits have three powers of two, too few to train with; more bits add smaller powers.")

# %% [markdown]
# More bits of a power of two add octaves, not resolution: two neighbours stay a factor of two apart. What is left
# between the two curves no number of bits can buy.
#
# ## The experiment
#
# What the race claims, as assertions: every recipe learns; every coded recipe with integer products takes less than a
# third of float32's energy; and three-bit powers of two are beaten by wide ones.

# %%
for label, row in standings.items():
    if label not in ("fp32", "lns-madam"):  # lns-madam multiplies decoded values in float32 unless path="bins"
        assert row["energy"] < standings["fp32"]["energy"] / 3, label
        assert row["bits"] < 16, label
if not lab.fast():  # 100 images teach nothing
    assert all(row["accuracy"] > 15 for row in standings.values())  # ten classes: guessing gives 10
    assert standings["fp32"]["accuracy"] > standings["potq, 4 bits"]["accuracy"]
    assert by_width[5] > by_width[3] + 5
print("as claimed")

# %% [markdown]
# ## Break it
#
# *Unequal budgets.* The easiest way to win: train your own favourite longer. The records have a row for each epoch.
# `potq` after its last epoch against `fp32` after its first:

# %%
rows = {label: lines[label].records[0].result["epochs"] for label in ("fp32", "potq")}
potq_last, fp32_first = (100 * rows[label][place]["test_acc"] for label, place in (("potq", -1), ("fp32", 0)))
print(f"potq after {EPOCHS} epochs {potq_last:.2f} %, fp32 after 1 epoch {fp32_first:.2f} %")
assert lab.fast() or potq_last > fp32_first

# %% [markdown]
# *The best of many seeds.* Two recipes of the very same quality, accuracies of 70 % with a scatter of 1 point. One is
# reported by its mean, the other by the best of five seeds:

# %%
draws = rng.normal(70, 1, (2000, 2, 5))
honest, best = draws[:, 0].mean(1), draws[:, 1].max(1)
print(f"the second seems better by {np.mean(best - honest):.2f} points, "
      f"in {np.mean(best > honest):.0%} of the cases")
assert np.mean(best > honest) > 0.8

# %% [markdown]
# *Leave the memory out.* The papers' energies, and the chart above, are those of arithmetic. Fetching a bit from DRAM
# takes 20 pJ by the same list (*recalled*), and between the layers of this training there is float32. With every tensor
# moved once for each use and no cache (our derivation, a pessimistic one), **by what factor does `potq` take less than
# `fp32`?**

# %%
my_guess = None

# %%
factors = {}
for memory in (False, True):
    joules = {name: energy.price(energy.count_named("small_cnn", minilp.recipe.get(name), 64)[0],
                                 energy.load_prices(), memory=memory).picojoules for name in ("fp32", "potq")}
    factors[memory] = joules["fp32"] / joules["potq"]
    print(f"{'with' if memory else 'without'} memory traffic: potq takes {factors[memory]:.2f} times less")
lab.guess(my_guess, round(factors[True], 2))
assert factors[True] < 2 < 10 < factors[False]

# %% [markdown]
# Both numbers are right, and answer different questions. Whoever quotes one says which. To keep the first in a real
# system, what moves between layers must be codes too, and stay on the chip.
#
# ## Differences from the papers
#
# Tags: *verified*: read in the source. *recalled*: from memory, not confirmed. *derived*: computed here or forced by
# what is verified. *default*: our choice where nothing is known. What is recalled or default is our assumption, not the
# papers' result.
#
# | what | the source | here | tag | effect |
# |---|---|---|---|---|
# | `potq` (Liu et al. 2023) | below 1 % loss, ImageNet and WMT (abstract) | a small CNN, minutes | verified claim, not re-created here | the gap above says nothing about theirs |
# | `potq`, energy | up to 95.8 % less in linear layers (abstract) | the products alone: 96.63 % against a MAC | verified; how 95.8 arises is our guess | whole steps save less, see above |
# | `mls` (Zhong et al. 2020) | loss within 1 % on CIFAR-10 with <2,1> elements (abstract) | the same element, another network | verified claim, not re-created here | first and last layer float32 (their code: verified) |
# | `lns-madam` (Zhao et al. 2022) | energy down by more than 90 % against FP32, 55 % against FP8 (abstract) | decoded products in float32 by default; `lns.path=bins` is the integer one | verified claim | its energy above is that of float32 products |
# | budgets | long trainings | equal epochs, one schedule for all | default | short trainings favour float32 |
# | learning rates | not read for most | the same for all SGD recipes, not tuned for each | default | a recipe may do better with its own |
# | prices | Horowitz's and the paper's table | the same, with gaps filled | verified for the paper's table and for Horowitz's FP32 and INT32; the rest recalled or default | printed beside each price |
# | `fp8`, `int8`, `mxfp4` | baselines of other papers | our settings, see `minilp/presets.py` | default | they are no re-creation of those papers |
# | CIFAR-10 | the original pixels | whatever is on this machine; recorded runs used a JPEG copy | default | a little less accurate than the original |
#
# ## Summary
#
# 1. A comparison needs one budget, more than one seed, and a gap larger than its error.
# 2. Bits include scales, energies include what was not coded, times are ratios within a round.
# 3. An energy is a count times somebody's prices: say whose, and say what was left out.
# 4. Plans and records make an experiment repeatable: found by configuration, continued where it stopped.
# 5. Nobody wins everywhere: the front shows what can be had for what.
#
# ## Questions
#
# 1. *(code)* Add `mxfp8` and `int8` with four bits (`int8` with `fixed.bits=4`) to the race. Where do they land?
# 2. *(code)* Give `potq` three learning rates (`"lr"` in a plan's run). Is the gap to float32 one of numbers or of
#    tuning? What would be fair to float32?
# 3. *(thought)* Someone reports that a format "matches float32": 92.1 against 92.3, one seed each. What do you ask for?
# 4. *(thought)* Which of the four measures would change on a chip that has power-of-two units, and which would not?
#
# This is the last lesson. What you find out, write down as a plan: the next reader can run it.

# %%
temporary.cleanup()
