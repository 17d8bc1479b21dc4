"""The README's figures are those of the recorded runs, sentence by sentence."""
import json
import pathlib
import re

import numpy as np
import pytest

from minilp import models
from minilp.results import load_plan, read, tables
from minilp.results.summary import replaced

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


@pytest.fixture(scope="module")
def text():
    return README.read_text()


@pytest.fixture(scope="module")
def results():
    return README.parent / "lessons" / "results"


def test_the_headline_table_is_that_of_the_records(results, text):
    """``minilp results --readme README.md`` was run since the last record came in."""
    records, plans = read(results), [load_plan(path) for path in (results.parent / "plans").glob("*.json")]
    assert replaced(text, plans, records) == text
    headline, = (plan for plan in plans if plan.name == "headline")
    lines = [line for line in (tables.planned(row, records) for row in headline.rows) if line.scores]
    mean = {line.label: np.mean(line.scores) for line in lines}
    behind = {label: f"{mean['fp32'] - score:.2f}" for label, score in mean.items()}
    variant = behind["potq, errors of the last layer rounded stochastically"]
    words = " ".join(text.split())
    images = behind["potq, the same, and images in 8-bit fixed point"]
    assert f"ends {behind['potq']} points behind, {variant} with the errors of its last layer rounded stoch" in words
    assert f"ally, {images} with images in 8-bit fixed point too" in words and "`potq` as we read the paper" in words
    assert f"stochastic rounding there leaves {variant} of the {behind['potq']} points, and images" in words
    assert f"coded like any activation otherwise (our assumption), {images}; all" in words
    by = {run.config.settings: run.score for run in records if run.config.recipe.name == "potq" and run.config.seed == 0
          and run.config.epochs == 15 and run.config.model == "resnet20"}
    left = mean["fp32"] - by["last.error.rounding=stochastic", "act=none"]
    assert f"all activations in float32 instead leave {left:.2f} (one seed), which" in words
    assert f"have them, {mean['fp32'] - by['first=none', 'last=none']:.2f} are left (one seed)" in words
    assert f"`lns-madam` ends {behind['lns-madam']} points behind" in words
    assert f"`mls` ends {behind['mls']} points behind `fp32`" in words
    assert f"After 15 epochs `mls` is {behind['mls']} points behind `fp32`" in words
    assert f"15 epochs `lns-madam` is {behind['lns-madam']} points behind `fp32`. Its" in words
    by_madam = mean["fp32, by Madam as lns-madam"]
    energy = {line.label: tables.row_of(line)["energy"] for line in lines}
    blocks = "mxfp4, scales of errors such that none saturates"
    assert f"(`int8`) end {behind['int8']} points behind for a twelfth of" in words
    assert f"`fp8` {-float(behind['fp8']):.2f} ahead for a fifth" in words
    assert f"(`mxfp4`) {behind[blocks]} behind for an eleventh, once no error saturates (one seed each)" in words
    assert f"Over 15 epochs that setting ends {behind[blocks]} points behind (one seed)." in words
    assert 4.5 < energy["fp32"] / energy["fp8"] < 5.5 and 10.5 < energy["fp32"] / energy[blocks] < 11.5
    assert 11.5 < energy["fp32"] / energy["int8"] < 12.5 and 5.5 < energy["fp32"] / energy["mls"] < 6.5
    assert "for a sixth of the energy" in words and "`potq` spends a twentieth" in words
    assert 20 < energy["fp32"] / energy["potq"] < 25
    assert f"but only {by_madam - mean['lns-madam']:.2f} behind float32 trained by the same optimizer (one" in words
    assert f"Its numbers cost {by_madam - mean['lns-madam']:.2f} of them: float32 trained by Madam" in words
    assert f"(`--recipe fp32 --optimizer madam`; one seed) ends at {by_madam:.2f} %" in words


def test_what_the_last_layers_errors_cost_is_what_was_recorded(results, text):
    found = {(run.config.recipe.name, run.config.settings): run.score for run in read(results)
             if (run.config.data, run.config.epochs, run.config.train_images) == ("cifar10", 3, 10000)
             and run.config.model == "resnet20" and run.config.seed == 0 and run.config.lr == 0.2}
    score = {setting: found["potq", (f"last.error.{setting}",)] for setting in (
        "rounding=stochastic", "bits=6", "threshold=linear")}
    text = " ".join(text.split())
    for words in (f"`potq` reaches {found['potq', ()]:.1f} %",
                  f"errors in float32 {found['potq', ('last.error=none',)]:.1f} %",
                  f"(`--set last.error.rounding=stochastic`) {score['rounding=stochastic']:.1f} %",
                  f"`fp32` {found['fp32', ()]:.1f} %; with all weights or all activations in float32 instead it",
                  f"it stays at {found['potq', ('weight=none',)]:.1f} and {found['potq', ('act=none',)]:.1f} %",
                  f"do not help ({score['bits=6']:.1f} %)",
                  f"up from 1.5 on ({score['threshold=linear']:.1f} %)"):
        assert words in text


def test_what_saturating_errors_cost_mxfp4_is_what_was_recorded(results, text):
    runs = [run for run in read(results) if run.config.model == "resnet20" and run.config.init is None]
    score = {run.config.settings: run.score for run in runs if run.config.recipe.name == "mxfp4"
             and (run.config.epochs, run.config.train_images) == (3, 10000)}
    words = ("it reaches {:.1f} %, with errors in float32 {:.1f} %, with the last layer in float32 {:.1f} %, with "
             "scales of errors such that none saturates (`--set error.scale_rule=ceil`) {:.1f} %; with weights or "
             "activations in float32 instead {:.1f} and {:.1f} %.")
    given = ((), ("error=none",), ("last=none",), ("error.scale_rule=ceil",), ("weight=none",), ("act=none",))
    assert words.format(*(score[settings] for settings in given)) in " ".join(text.split())
    full = {run.config.settings: run.score for run in runs if run.config.recipe.name == "mxfp4"
            and run.config.epochs == 15}
    fp32 = np.mean([run.score for run in runs if run.config.recipe.name == "fp32" and run.config.epochs == 15
                    and run.config.optimizer == "sgd" and not run.config.settings])
    assert f"`mxfp4` ends {fp32 - full[()]:.2f} points behind `fp32` as it is" in text


def test_the_learning_rate_is_not_what_potq_lacks(results, text):
    found = {name: [run.score for run in read(results) if run.config.recipe.name == name and not run.config.settings
                    and (run.config.data, run.config.model, run.config.epochs) == ("cifar10", "resnet20", 3)
                    and run.config.train_images == 10000 and run.config.seed == 0 and run.config.init is None
                    and run.config.optimizer == "sgd"] for name in ("potq", "fp32")}
    assert [len(scores) for scores in found.values()] == [4, 4]
    low, high = ({name: f(scores) for name, scores in found.items()} for f in (min, max))
    assert (f"to one of 0.4 it ends between {low['potq']:.1f} and {high['potq']:.1f} %, `fp32` between "
            f"{low['fp32']:.1f} and {high['fp32']:.1f} %.") in " ".join(text.split())


def test_what_activations_cost_from_float32s_weights_is_what_was_recorded(results, text):
    found = {(run.config.epochs, run.config.recipe.name, run.config.settings): run.score for run in read(results)
             if run.config.init is not None}
    words = ("from the weights that `fp32` ended with (`lessons/plans/gaps.json`, `--init`), three epochs at a tenth "
             "of the rate bring `potq` to {:.2f} %, with activations in float32 to {:.2f} %, with weights {:.2f} %, "
             "with errors {:.2f} %, `fp32` to {:.2f} %; with images in 8-bit fixed point {:.2f} %, with first and last "
             "layer in float32 {:.2f} %.")
    tuned = [found[3, "potq", tuple(given)] for given in ([], ["act=none"], ["weight=none"], ["error=none"])]
    ends = [found[3, "potq", given] for given in (("first.act=fixed",), ("first=none", "last=none"))]
    text = " ".join(text.split())
    assert words.format(*tuned, found[3, "fp32", ()], *ends) in text
    moved = max(abs(found[3, "potq", (given,)] - tuned[0]) for given in ("act.before=none", "act.threshold=linear"))
    assert f"Clipping and the threshold of rounding move it by less than {moved + 0.05:.1f} points" in text
    assert f"With nothing trained at all it is {found[1, 'potq', ()]:.2f} %;" in text
    still = found[1, "potq", ("first.act=none",)], found[1, "potq", ("act=none",)], found[1, "fp32", ()]
    assert "the images alone in float32 {:.2f} %, all activations {:.2f} %, `fp32` {:.2f} %.".format(*still) in text


def test_what_single_switches_do_is_what_was_recorded(results, text):
    """The sentences on the ablations, figure by figure."""
    every = [run for run in read(results) if run.config.model == "resnet20" and run.config.init is None
             and (run.config.data, run.config.epochs, run.config.train_images) == ("cifar10", 3, 10000)]
    runs = [run for run in every if run.config.lr == 0.2 or run.config.optimizer != "sgd"]
    found = {(run.config.recipe.name, *run.config.settings): run.score for run in runs
             if run.config.seed == 0 and run.config.optimizer != "adamw"}
    as_is = ((), ("lns.gamma=8", "update.gamma=2048"))  # the same lns-madam in other words
    seeds = {name: [run.score for run in runs if run.config.recipe.name == name and run.config.settings in as_is]
             for name in ("potq", "mls", "lns-madam")}
    assert all(len(scores) == 3 for scores in seeds.values())

    def says(words, *values):
        assert words.format(*values) in " ".join(text.split())

    low, high = ([f(scores) for scores in seeds.values()] for f in (min, max))
    says("lie from {:.1f} to {:.1f} % (`potq`), {:.1f} to {:.1f} % (`mls`) and {:.1f} to {:.1f} % (`lns-madam`)",
         *(value for pair in zip(low, high, strict=True) for value in pair))
    weight, act = "weight.before=none", "act.before=none"
    says("`potq` reaches {:.1f} %, without the first {:.1f} %, without the second {:.1f} %, without both {:.1f} %.",
         *(found[("potq", *given)] for given in ((), (weight,), (act,), (weight, act))))
    says("do not help ({:.1f} %), four do not hurt ({:.1f} %)", *(found["potq", f"pot.bits={b}"] for b in (6, 4)))
    says("scale for the tensor reaches {:.1f} %, with one a sample {:.1f} %, a channel {:.1f} %, both as published "
         "{:.1f} %.", *(found["mls", f"mls.group={group}"] for group in ("none", "n", "c")), found["mls",])
    says("as <2,1>, reach {:.1f} %; <2,4> and <0,4> reach {:.1f} and {:.1f} %", found["mls", "mls.exp=0", "mls.man=2"],
         found["mls", "mls.man=4"], found["mls", "mls.exp=0", "mls.man=4"])
    roles = [found[("mls", *given)] for given in ((), ("error=none",), ("weight=none",), ("act=none",))]
    says("(`lessons/plans/roles.json`, one seed) it reaches {:.1f} %, with errors in float32 {:.1f} %, with weights "
         "{:.1f} %, with activations {:.1f} %.", *roles)
    others = (found["mls", given] for given in ("error.rounding=nearest", "mls.group_man=0", "mls.top=keep"))
    says("stay within {:.1f} points of the recipe", max(abs(score - found["mls",]) for score in others) + 0.05)
    gamma = {g: found["lns-madam", f"lns.gamma={g}", f"update.gamma={256 * g}"] for g in (1, 2, 4, 16, 32)}
    gamma[8] = found[("lns-madam", *as_is[1])]
    says("of 2 to 8 ({:.1f} to {:.1f} %); 1 is too coarse ({:.1f} %), 16 and 32 span too few octaves ({:.1f} and "
         "{:.1f} %)", *(f([gamma[g] for g in (2, 4, 8)]) for f in (min, max)), *(gamma[g] for g in (1, 16, 32)))
    stored = {optimizer: [run.score for run in every if run.config.optimizer == optimizer
                          and run.config.settings[:1] == ("update.rounding=stochastic",)]
              for optimizer in ("madam", "sgd", "adamw")}
    assert all(len(scores) == 7 for scores in stored.values())
    says("ten bits as well as sixteen: {:.1f} to {:.1f} %; so they do, in so short a training, under SGD ({:.1f} to "
         "{:.1f} %) and AdamW ({:.1f} to {:.1f} %).", *(f(scores) for scores in stored.values() for f in (min, max)))
    few = {run.config.settings[-1]: run.score for run in read(results) if run.config.model == "small_cnn"
           and run.config.settings[:2] == ("lns.path=bins", "lns.convert=hybrid")}
    says("one, two, four or all eight constants of the conversion to linear make no difference on `small_cnn` ({:.1f}, "
         "{:.1f}, {:.1f}, {:.1f} %).", *(few[f"lns.lut={n}"] for n in (1, 2, 4, 8)))


def test_gaps_of_the_other_networks_are_those_recorded(results, text):
    found = {run.config.recipe.name: run.score for run in read(results) if run.config.epochs == 15
             and run.config.model == "small_cnn" and not run.config.settings}
    size = sum(param.size for param in models.build("small_cnn").parameters())
    behind = [found["fp32"] - found[name] for name in ("potq", "mls", "lns-madam")]
    words = ("on `small_cnn` ({:,} parameters, the same budget, one seed; `lessons/plans/second_network.json`) `potq` "
             "ends {:.2f} points behind `fp32`'s {:.2f} %, `mls` {:.2f} and `lns-madam` {:.2f}.")
    text = " ".join(text.split())
    assert words.format(size, behind[0], found["fp32"], *behind[1:]) in text
    vgg = {run.config.recipe.name: run.score for run in read(results) if run.config.model == "vgg11"}
    behind = [vgg["fp32"] - vgg[name] for name in ("potq", "mls", "lns-madam")]
    size = sum(param.size for param in models.build("vgg11", width=16).parameters())
    words = ("On VGG-11 of a quarter of its width ({:,} parameters), where `fp32` ends at {:.2f} %, the gaps are "
             "`potq` {:.2f}, `mls` {:.2f}, `lns-madam` {:.2f}.")
    assert words.format(size, vgg["fp32"], *behind) in text


def test_accuracies_are_those_of_the_recorded_runs(results, text):
    for recipe_name, epochs in (("fp32", 3), ("potq", 3), ("mls", 3), ("lns-madam", 3)):
        paths = sorted(results.glob(f"cifar10-resnet20-{recipe_name}-e{epochs}-s*.json"))
        runs = [json.loads(path.read_text()) for path in paths]
        scores = [run["test_acc"] * 100 for run in runs]
        assert len(scores) == 3 and all(len(run["commit"]) == 40 and len(run["epochs"]) == epochs for run in runs)
        assert f"{np.mean(scores):.2f} % ({', '.join(f'{score:.2f}' for score in scores)})" in text
    names = ("fp32-s0", "potq-s0", "mls-e5-s0", "lns-madam-e5-s0")
    small = [json.loads((results / f"shapes10-small_cnn-{name}.json").read_text())["test_acc"] * 100 for name in names]
    assert f"| shapes10, small_cnn, 5 epochs, seed 0 | {' | '.join(f'{score:.2f} %' for score in small)} |" in text


def test_translations_are_scored_as_recorded(results, text):
    found = {(run.config.recipe.name, run.config.settings[1:]): run.score for run in read(results)
             if run.config.data == "multi30k" and run.config.epochs == 8}
    row, = (line for line in text.splitlines() if line.startswith("| Multi30k"))
    scores = [re.match(r" ([0-9.]+)", cell)[1] for cell in row.split("|")[2:6]]
    assert scores == [f"{found[name, ()]:.2f}" for name in ("fp32", "potq", "mls", "lns-madam")]
    last, coded = found["potq", ("last=none",)], found["potq", ("attention=coded",)]
    assert f"({last:.2f} with the output layer float32, {coded:.2f} with attention's two products coded too)" in row
    behind = [found["fp32", ()] - score for score in (found["potq", ()], last, coded, found["mls", ()],
                                                      found["lns-madam", ()])]
    assert ("`potq` ends {:.2f} BLEU behind `fp32` (we aimed at 1.5; {:.2f} with the output layer float32, {:.1f} with "
            "attention coded), `mls` {:.1f} and `lns-madam` {:.1f}".format(*behind)) in text


def fine_tuned(path):
    """Validation accuracy in per cent: before any step, and by (optimizer, bits) at each optimizer's best rate."""
    found = json.loads(path.read_text())
    rates = found["learning_rates"]["stochastic"]
    return 100 * found["before"]["val_acc"], {(row["optimizer"], row["bits"]): 100 * row["val_acc"]
                                              for row in found["rows"] if row["lr"] == rates[row["optimizer"]]}


def test_what_each_role_costs_in_translation_is_what_was_recorded(results, text):
    loss = {(run.config.recipe.name, run.config.settings[1:]): run.measured("val_loss") for run in read(results)
            if run.config.data == "multi30k" and run.config.epochs == 1}
    role = {name: loss["potq", (f"{name}=none",)] for name in ("weight", "error", "last", "act")}
    words = ("validation loss of {:.2f}, `fp32` {:.2f}; in between lie `potq` with weights in float32 ({:.2f}), with "
             "errors ({:.2f}), with the output layer ({:.2f}) and with activations ({:.2f})")
    assert words.format(loss["potq", ()], loss["fp32", ()], *role.values()) in " ".join(text.split())
    alone = loss["potq", ("last.error=none",)]
    assert f"The output layer's errors alone in float32 give {alone:.2f}: they" in " ".join(text.split())


def test_fine_tuning_did_what_was_recorded(results, text):
    text = " ".join(text.split())
    before, accuracy = fine_tuned(results / "finetune-multi30k-reverse.json")
    madam, adamw = (accuracy[name, 10] - accuracy[name, 16] for name in ("madam", "adamw"))
    assert (f"rises from {before:.2f} % to {accuracy['madam', 16]:.2f} % under Madam and {accuracy['adamw', 16]:.2f} % "
            f"under AdamW with weights of 16 bits, and ten bits change that by {madam:+.2f} and {adamw:+.2f}") in text
    before, accuracy = fine_tuned(results / "finetune-multi30k.json")
    madam, adamw = (accuracy[name, 10] - accuracy[name, 16] for name in ("madam", "adamw"))
    assert f"changes by {madam:+.2f} and {adamw:+.2f} (`finetune-multi30k.json`)" in text
    assert f"before any step it was {before:.2f} %" in text and max(accuracy.values()) < before


def test_step_times_are_those_of_the_recorded_benchmarks(results, text):
    rows = json.loads((results / "bench-step-resnet20.json").read_text())
    assert {"fp32", "potq", "mls"} <= {row["recipe"] for row in rows}
    ways = {"auto": "as it comes", "shift": "shift/add"}
    for row in rows:
        name = ":".join([row["recipe"], *row["settings"]])
        way = ways[row["kernels"]] + " without AMX" * (row["isa"] == "vnni")
        times = f"{row['ms_median']:.0f} | {row['torch_ms_median']:.0f} | **{row['ratio']:.2f}**"
        assert f"| `{name}` | {way} | {times}" in text
        assert row["steps"] >= 31
    for row in json.loads((results / "bench-step-transformer.json").read_text()):
        times = f"{row['ms_median']:.0f} | {row['torch_ms_median']:.0f} | **{row['ratio']:.2f}**"
        assert f"| `{':'.join([row['recipe'], *row['settings']])}` | {times}" in text and row["steps"] >= 31


def test_how_a_step_grows_is_what_was_recorded(results, text):
    grown = {(row["series"], row["value"]): row for row in json.loads((results / "bench-scale.json").read_text())}
    far = max(abs(row["relative"]) for (series, _), row in grown.items() if series == "depth")
    batch, width = grown["batch", 512]["relative"], grown["width", 4]["relative"]
    for words in (f"a batch of 512 takes {batch:.2f} of", f"more than {100 * far:.1f} % from a straight line",
                  f"as wide takes {width:.2f} of", f"A batch of 16 takes {grown['batch', 16]['ms_median']:.0f} ms"):
        assert words in text
    path_float, path_bins = json.loads((results / "bench-lns-bins.json").read_text())
    assert f"takes {path_bins['ms_median'] / path_float['ms_median']:.0f} times as long" in text
