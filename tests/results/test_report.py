"""The report: the same bytes every time, gaps and spreads by hand, budgets apart, commands that repeat a row."""
import json
import pathlib
import re
import shlex

import pytest

from minilp import cli
from minilp.results import load_plan, read, report
from minilp.results.plan import make_plan
from minilp.results.record import identity
from minilp.results.reporting import render
from minilp.results.tables import table, unplanned
from minilp.training import TrainConfig

LESSONS = pathlib.Path(__file__).resolve().parents[2] / "lessons"
PLAN = {"title": "Bits", "about": "Why.", "plot": "bars",
        "defaults": {"data": "cifar10", "model": "resnet20", "epochs": 2},
        "runs": [{"recipe": "fp32", "seeds": [0, 1]}, {"recipe": "potq", "seeds": [0, 1, 2]},
                 {"table": "narrow", "recipe": "potq", "set": ["pot.bits=4"], "label": "4 bits", "note": "A remark."},
                 {"table": "narrow", "recipe": "mls"}]}


def cells(text, label):
    """The cells of the first row with that label."""
    line, *_ = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def recorded(write, tmp_path):
    for seed, accuracy in ((0, 0.80), (1, 0.82)):
        write(accuracy, seed=seed, energy=4e7)
    for seed, accuracy in ((0, 0.79), (1, 0.815)):
        write(accuracy, seed=seed, recipe="potq", energy=5e6)
    write(None, recipe="mls")
    write(0.9, epochs=9)
    return tmp_path / "results"


def test_rows_hold_means_spreads_gaps_and_how_many_seeds(recorded):
    text, _ = render(read(recorded), [make_plan(PLAN, "bits")])
    assert cells(text, "fp32")[1:5] == ["2", "81.00 (80.00 .. 82.00)", "+0.00 (-1.00 .. +1.00)", "40"]
    assert cells(text, "potq")[1:7] == ["2 of 3", "80.25 (79.00 .. 81.50)", "-0.75 (-2.00 .. +0.50)", "5", "100", "4.0"]
    assert cells(text, "4 bits")[1:4] == ["0 of 1", "not run yet", "-"]
    assert cells(text, "mls")[1:4] == ["1", "diverged (seed 0)", "-"]
    assert text.count("Gaps are against the mean of fp32 over seeds 0, 1, 81.00.") == 2
    assert "A remark." in text and "Why." in text and "5 of 7 trainings recorded" in text
    assert "CIFAR-10 (JPEG mirror), resnet20, 2 epochs, batch 128" in text


def test_budgets_are_never_mixed(recorded):
    records = read(recorded)
    text, _ = render(records, [make_plan(PLAN, "bits")])
    rest = text[text.index("## Recorded besides"):]
    assert "9 epochs" in rest and "90.00" in rest and "2 epochs" not in rest and "90.00" not in text[:-len(rest)]
    with pytest.raises(ValueError, match="one budget"):
        table(unplanned(records), records)
    mixed = make_plan({"runs": [{"data": "cifar10", "model": "resnet20", "recipe": "fp32", "epochs": e}
                                for e in (2, 9)]}, "mixed")
    text, _ = render(records, [mixed])
    section = text[:text.index("## Recorded besides")]
    assert section.count("| seeds |") == 2


def test_every_row_has_the_command_that_repeats_it(recorded):
    plan = make_plan(PLAN, "bits")
    text, _ = render(read(recorded), [plan])
    found = []
    for command in re.findall(r"`(minilp train [^`]*)` \|", text):
        args = vars(cli.parser().parse_args(shlex.split(command)[1:]))
        found.append(identity(TrainConfig.create(settings=args.pop("set"), **{
            k: v for k, v in args.items() if k not in ("run", "out", "resume")})))
    assert found[:4] == [identity(row.runs[0].config) for row in plan.rows] and len(found) == 5


def test_without_float32_there_is_no_gap(write, tmp_path):
    write(0.8, recipe="potq")
    text, _ = render(read(tmp_path / "results"), [])
    assert cells(text, "potq")[3] == "-" and "No float32 training of this budget is recorded" in text


def test_an_optimizers_own_batches_are_no_other_budget_but_chosen_ones_are(write, tmp_path):
    write(0.9, recipe="fp32")
    write(0.8, recipe="lns-madam")  # Madam's default is 64 images
    text, _ = render(read(tmp_path / "results"), [])
    assert "2 epochs, batch 128 or batch 64 (the optimizer's default), schedule" in text
    assert text.count("| seeds |") == 1 and cells(text, "lns-madam")[3] == "-10.00"
    write(0.7, recipe="potq", batch_size=64)  # now 64 is a batch that somebody chose
    text, _ = render(read(tmp_path / "results"), [])
    assert text.count("| seeds |") == 2 and cells(text, "potq")[3] == cells(text, "lns-madam")[3] == "-"
    write(0.75, recipe="fp32", batch_size=64)
    text, _ = render(read(tmp_path / "results"), [])
    assert cells(text, "lns-madam")[3] == "+5.00" and cells(text, "potq")[3] == "-5.00"


def test_a_schedule_with_settings_is_held_against_float32_with_the_same(write, tmp_path):
    given = {"settings": ["schedule.pct_start=0.1"]}
    for accuracy, recipe in ((0.9, "fp32"), (0.8, "potq")):
        write(accuracy, recipe=recipe, **given)
    text, _ = render(read(tmp_path / "results"), [])
    assert cells(text, "potq `schedule.pct_start=0.1`")[3] == "-10.00"
    write(0.85, recipe="fp32")  # the plain one is what others are held against
    text, _ = render(read(tmp_path / "results"), [])
    assert cells(text, "potq `schedule.pct_start=0.1`")[3] == "-5.00"


def test_trainings_from_other_weights_are_held_against_float32_from_the_same(write, tmp_path):
    shared = {"init": "runs/float", "lr": 0.02}
    for given, accuracy in (({}, 0.9), (shared, 0.8), ({**shared, "init": "runs/other"}, 0.7)):
        write(accuracy, **given)
    write(0.75, recipe="potq", **shared)
    text, _ = render(read(tmp_path / "results"), [])
    row, = (line for line in text.splitlines() if line.startswith("| potq"))
    assert "| 75.00 | -5.00 |" in row
    assert text.count("from the weights of float:") == 1 and text.count("from the weights of other:") == 1


def test_a_plan_may_judge_by_the_validation_loss(write, tmp_path):
    for loss, recipe in ((2.0, "fp32"), (2.5, "potq")):
        path = write(0.1, recipe=recipe)
        content = json.loads(path.read_text())
        content["val_loss"] = loss
        path.write_text(json.dumps(content))
    plan = {**PLAN, "score": "val_loss", "runs": [{"recipe": "fp32"}, {"recipe": "potq"}]}
    text, drawings = render(read(tmp_path / "results"), [make_plan(plan, "losses")])
    assert "| validation loss | above fp32 |" in text and cells(text, "potq")[2:4] == ["2.50", "+0.50"]
    (_, tables_drawn), = drawings.values()
    assert [row["mean"] for rows in tables_drawn.values() for row in rows] == [2.0, 2.5]
    with pytest.raises(ValueError, match="score: expected one of test_acc, bleu, val_loss, got 'loss'"):
        make_plan({**plan, "score": "loss"}, "losses")


def test_files_are_the_same_the_second_time(recorded, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "plans").mkdir()
    for name, kind in (("bits", "bars"), ("more", "energy")):
        (tmp_path / "plans" / f"{name}.json").write_text(json.dumps({**PLAN, "plot": kind}))
    path = report(recorded, tmp_path / "plans")
    first = {file.name: file.read_bytes() for file in recorded.iterdir()}
    assert {"RESULTS.md", "bits-bars.png", "more-energy.png"} <= set(first) and path.name == "RESULTS.md"
    assert all(first[name].startswith(b"\x89PNG") for name in first if name.endswith(".png"))
    assert cli.main(["results", "--results", str(recorded), "--plans", str(tmp_path / "plans")]) == 0
    assert {file.name: file.read_bytes() for file in recorded.iterdir()} == first
    assert "![Bits](bits-bars.png)" in path.read_text()


def test_a_plan_without_results_has_no_picture():
    text, drawings = render([], [make_plan(PLAN, "bits")])
    assert not drawings and ".png" not in text and text.count("not run yet") == 4


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="results: expected a folder"):
        report(tmp_path / "none", tmp_path)
    with pytest.raises(ValueError, match="plans: expected a folder"):
        report(tmp_path, tmp_path / "none")


def test_the_published_report_is_that_of_the_records():
    """``minilp results`` was run since the last record or plan came in; pictures depend on matplotlib's version."""
    text, drawings = render(read(LESSONS / "results"), [load_plan(path) for path in (LESSONS / "plans").glob("*.json")])
    assert (LESSONS / "results" / "RESULTS.md").read_text() == text
    assert all((LESSONS / "results" / name).read_bytes().startswith(b"\x89PNG") for name in drawings)
