"""Quantisation errors of three update rules: under their bounds, at their expectation, and as derived by hand."""
import math

import numpy as np
import pytest

from minilp import cli
from minilp.experiments import lns_theory as experiment
from minilp.experiments import update_error

# (gamma, eta): error of GD, of MUL, and the three bounds, from an earlier simulation of our own with other draws.
KNOWN = {(1024, 2.0**-4): (6.48e-4, 6.54e-4, 21.7, 2.51e-3, 0.25),
         (1024, 2.0**-6): (6.50e-4, 3.98e-4, 22.0, 6.24e-4, 0.0625),
         (1024, 2.0**-8): (6.54e-4, 1.17e-4, 22.0, 1.52e-4, 0.0156),
         (256, 2.0**-6): (1.04e-2, 1.92e-3, 87.9, 2.53e-3, 0.25)}


@pytest.mark.parametrize(("gamma", "eta"), [*KNOWN, (1024, 2.0**-11), (64, 0.3), (8, 2.0**-7), (1.5, 3.0)])
@pytest.mark.parametrize("d", [1, 7, 4096])
def test_errors_keep_their_bounds_and_meet_their_expectation(gamma, eta, d):
    for row in update_error(gamma, eta, d=d, draws=30, seed=3):
        # Each squared error is at most 1 unit^2, so its variance is at most its mean; six standard deviations.
        noise = 6 * math.sqrt(row["expected"] / gamma**2 / row["draws"]) + 1e-15
        assert abs(row["error"] - row["expected"]) <= noise, row
        assert row["expected"] <= min(row["bound"], row["cap"]), row
        assert row["error"] <= min(row["bound"], row["cap"]) + noise, row


@pytest.mark.parametrize("setting", KNOWN)
def test_the_known_table(setting):
    """4096 other weights: each f(1-f) spreads by less than 0.09, so a sum over 4096 by a few percent."""
    gd, mul, signmul = update_error(*setting, draws=30, seed=1)
    known_gd, known_mul, *known_bounds = KNOWN[setting]
    assert gd["error"] == pytest.approx(known_gd, rel=0.05) and mul["error"] == pytest.approx(known_mul, rel=0.05)
    assert signmul["error"] == 0.0
    assert [row["bound"] for row in (gd, mul, signmul)] == pytest.approx(known_bounds, rel=0.05)


@pytest.mark.parametrize("eta", [1 / 64, 3 / 64, 1.0])
def test_sign_steps_of_whole_units_lose_nothing(eta):
    assert update_error(64, eta, draws=5)[2]["error"] == 0.0


def test_sign_steps_of_half_a_unit_lose_the_most_possible():
    row = update_error(64, 0.5 / 64, draws=5)[2]
    assert row["error"] == row["cap"] == 4096 / (4 * 64**2) and row["bound"] == 2 * row["cap"]


def test_expectations_follow_from_the_rules():
    """The three U, written out from weights and gradients; rounding up with probability f, in full."""
    gamma, eta, d = 32, 2.0**-6, 500
    rng = np.random.Generator(np.random.PCG64(11))
    w, g = rng.normal(0, 0.05, d), rng.normal(0, 0.01, d)
    w = np.sign(w) * 2.0 ** (np.rint(gamma * np.log2(np.abs(w))) / gamma)
    stepped = {"gd": w - eta * g, "mul": w * 2.0 ** (-eta * g * np.sign(w)),
               "signmul": w * 2.0 ** (-eta * np.sign(g) * np.sign(w))}
    for row in update_error(gamma, eta, d=d, draws=2, seed=11):
        x = gamma * np.log2(np.abs(stepped[row["rule"]]))
        low = np.floor(x)
        expected = ((low + 1 - x) ** 2 * (x - low) + (low - x) ** 2 * (low + 1 - x)).sum() / gamma**2
        assert row["expected"] == pytest.approx(expected, rel=1e-6)


def test_the_same_seed_gives_the_same_rows():
    assert update_error(64, 0.1, d=50, draws=3, seed=5) == update_error(64, 0.1, d=50, draws=3, seed=5)
    assert update_error(64, 0.1, d=50, draws=3, seed=5) != update_error(64, 0.1, d=50, draws=3, seed=6)


@pytest.mark.parametrize(("change", "words"), [
    ({"gamma": 0}, "gamma.*above 0.*got 0"), ({"eta": math.inf}, "eta.*finite.*inf"), ({"d": 0}, "d:.*at least 1.*0"),
    ({"draws": 1}, "draws.*at least 2"), ({"seed": -1}, "seed.*at least 0.*-1")])
def test_bad_arguments_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        update_error(**{"gamma": 64, "eta": 0.1, **change})


def test_the_command_prints_a_line_a_setting(capsys):
    assert cli.main(["experiment", "lns-theory", "--draws", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(experiment.SETTINGS) + 2 and lines[0].split()[:2] == ["gamma", "eta"]
    assert all(line.count("<=") == 3 for line in lines[1:-1]) and "0 <= 0.25" in lines[1]
