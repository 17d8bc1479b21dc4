"""Madam against a derivation of its own: the released float form, the integer form, and where the two agree."""
import math

import numpy as np
import pytest

from minilp import optim, random
from minilp.autograd import Tensor
from minilp.autograd.parameter import Parameter
from minilp.formats import LNS, Fixed
from minilp.formats.rounding import rounding_context

STEPS = 2000


def released(w, grads, lr=1 / 128, beta=0.999, p_scale=3.0, g_bound=10.0, rounded=True, decay=0.0):
    """One scalar after another in Python's floats, from the description of the released code."""
    w = w.tolist()
    v, rms = [0.0] * len(w), math.sqrt(sum(x * x for x in w) / len(w))
    for t, g in enumerate(grads, 1):
        for i, gi in enumerate(g.tolist()):
            v[i] = beta * v[i] + (1 - beta) * gi * gi
            root = math.sqrt(v[i] / (1 - beta ** t))
            star = gi / root if root > 0 else 0.0
            star = max(-g_bound, min(g_bound, star))
            star = float(round(star)) if rounded else star  # Python rounds half to even, as torch does
            sign = (w[i] > 0) - (w[i] < 0)
            turn = -lr * star * sign
            w[i] *= math.exp(turn - lr * decay) if decay else 2.0 ** turn
            w[i] = max(-p_scale * rms, min(p_scale * rms, w[i]))
    return np.array(w)


def pulls(shape, target, curve, rng):
    """Noisy gradients of a quadratic with its minimum at ``target``: most weights settle, some run to a bound."""
    def gradient(w):
        return curve * (w - target) + 0.3 * rng.normal(size=shape)
    return gradient


@pytest.mark.parametrize("options", [{}, {"rounded": False}, {"lr": 0.02, "beta": 0.9, "p_scale": 1.5, "g_bound": 1.7},
                                     {"decay": 0.3}])
def test_two_thousand_steps_of_the_released_form(options):
    rng = np.random.default_rng(1)
    start = rng.normal(size=12)
    param = Parameter(start.copy())
    assert param.dtype == np.float64
    names = {"rounded": "round_gradient", "decay": "weight_decay"}
    optimizer = optim.Madam([param], **{names.get(key, key): value for key, value in options.items()})
    gradient, grads = pulls(12, rng.normal(size=12), 0.7, rng), []
    for step in range(STEPS):
        grads.append(gradient(param.data) if step % 50 else np.zeros(12))
        param.grad = grads[-1].copy()
        optimizer.step()
    np.testing.assert_allclose(param.data, released(start, grads, **options), rtol=1e-13)
    assert abs(np.log2(param.data / start)).max() > 1, "the weights must have moved for this to say anything"
    assert (np.sign(param.data) == np.sign(start)).all()


def test_defaults_are_those_of_the_release():
    group = optim.Madam([Parameter([1.0])]).param_groups[0]
    assert (group["lr"], group["beta"], group["p_scale"], group["g_bound"], group["weight_decay"]) == (
        1 / 128, 0.999, 3.0, 10.0, 0.0)


def test_integer_form_equals_the_released_form_at_twelve_bits():
    """eta * gamma_U = 1: acceptance test of our notes. Only float64's own rounding is between the two."""
    fmt = LNS(bits=12, gamma=128, zero="code")
    rng = np.random.default_rng(3)
    codes = (fmt.top - rng.integers(40, 700, 200)) * rng.choice([-1, 1], 200)
    unit = np.sign(codes) * 2.0 ** ((np.abs(codes) - fmt.top) / fmt.gamma)  # under a maximum of 1
    # Weights on the lattice under a maximum of 1, and p_scale such that the bound of their root mean square is that 1.
    p_scale = 1 / math.sqrt(np.mean(unit**2))
    stored = Parameter(unit.astype(np.float32))
    stored.live_as(fmt)
    integer = optim.Madam([stored], p_scale=p_scale)
    top = float(stored.code.scales[0][0])
    assert top == pytest.approx(1, rel=1e-6) and (stored.code.codes == codes).all()
    free = Parameter(unit.copy())
    floating = optim.Madam([free], p_scale=p_scale)
    target = unit * 2.0 ** rng.normal(0, 0.7, 200) * np.where(rng.random(200) < 0.1, -1, 1)
    never, lowest, moved = np.ones(200, bool), 1, 0
    for _ in range(STEPS):
        grad = ((free.data - target) * 3 + 0.1 * rng.normal(size=200) * np.abs(target)).astype(np.float32)
        before = stored.code.codes
        stored.grad, free.grad = grad, grad.astype(np.float64)
        integer.step()
        floating.step()
        # The second moments differ in their last bits (float32 and float64): a g* beside a half may round differently.
        floating.state[0]["v"][...] = integer.state[0]["v"]
        never &= np.abs(stored.code.codes) > lowest
        moved += np.count_nonzero(stored.code.codes != before)
    want = np.sign(stored.code.codes) * 2.0 ** ((np.abs(stored.code.codes.astype(float)) - fmt.top) / fmt.gamma)
    apart = np.abs(free.data / want - 1)
    assert never.sum() > 150 and moved > 20_000
    np.testing.assert_array_less(apart[never], 1e-13)
    assert (~never).sum() >= 5, "some must run to the floor: those whose target has the other sign"
    assert (free.data[~never] != want[~never]).all(), "the float form has no floor"


def one_step(fmt, values, grad, **options):
    param = Parameter(np.array(values, np.float32))
    param.live_as(fmt, rounding=options.pop("rounding", "nearest"))
    optimizer = optim.Madam([param], **options)
    before = param.code.codes.astype(int)
    param.grad = np.array(grad, np.float32)
    optimizer.step()
    return before, param.code.codes.astype(int), param


def test_first_step_moves_by_lr_gamma_levels_against_the_gradient():
    """On the first step g* is the sign of g: 16 levels at 16 bits, 4 at 14, 1 at 12, against it."""
    for bits, gamma, levels in ((16, 2048, 16), (14, 512, 4), (12, 128, 1)):
        before, after, _ = one_step(LNS(bits, gamma, zero="code"), [0.5, 0.5, -0.5, -0.5, 0.25], [1, -2, 3, -4, 0])
        assert (after - before).tolist() == [-levels, levels, -levels, levels, 0]


def test_half_a_level_rounds_to_even_or_at_random():
    """At 11 bits a step is half a level: to nearest all stand still, stochastically half of them move."""
    fmt = LNS(11, 64, zero="code")
    weights, grads = np.full(4000, 0.5), np.ones(4000)
    before, after, _ = one_step(fmt, weights, grads)
    assert (after == before).all()
    before, after, _ = one_step(fmt, weights, grads, rounding="stochastic")
    assert set(before - after) == {0, 1} and abs((before - after).mean() - 0.5) < 0.05
    before, after, _ = one_step(fmt, weights, -grads, rounding="stochastic", lr=1.25 / 64)
    assert set(after - before) == {1, 2} and abs((after - before).mean() - 1.25) < 0.04
    assert (one_step(fmt, weights, grads, lr=1.5 / 64)[0] - one_step(fmt, weights, grads, lr=1.5 / 64)[1] == 2).all()


def test_stochastic_draws_follow_the_clock_and_not_the_layout():
    def run(step, order="C"):
        param = Parameter(np.asarray(np.full((40, 50), 0.5, np.float32), order=order))
        param.live_as(LNS(10, 32, zero="code"), rounding="stochastic")
        optimizer = optim.Madam([param])
        param.grad = np.ones((40, 50), np.float32)
        with rounding_context(7, step):
            optimizer.step()
        return param.code.codes.copy()

    assert (run(3) == run(3)).all() and (run(3) == run(3, "F")).all()
    assert (run(3) != run(4)).any()


def test_without_a_clock_every_step_draws_anew():
    param = Parameter(np.full(1000, 0.5, np.float32))
    param.live_as(LNS(10, 32, zero="code"), rounding="stochastic")
    optimizer = optim.Madam([param])
    start = param.code.codes.astype(int)
    for _ in range(8):
        param.grad = np.ones(1000, np.float32)
        optimizer.step()
    assert set(range(5)) <= set((start - param.code.codes).tolist()), "the same draws would move all or none by 8"


def test_rounding_the_gradient_first_is_an_option():
    fmt, values = LNS(16, 2048, zero="code"), np.full(64, 0.5)
    grads = [np.full(64, 1.0), np.linspace(0.1, 3, 64)]

    def after(**options):
        param = Parameter(np.asarray(values, np.float32))
        param.live_as(fmt)
        optimizer, start = optim.Madam([param], **options), None
        start = param.code.codes.astype(int)
        for grad in grads:
            param.grad = grad.astype(np.float32)
            optimizer.step()
        return start - param.code.codes

    assert (after(round_gradient=True) % 16 == 0).all()
    assert (after() % 16 != 0).any() and (after(round_gradient=False) == after()).all()


def test_weight_decay_of_codes_is_the_released_branch():
    _, after, param = one_step(LNS(16, 2048, zero="code"), np.full(8, 0.5), np.ones(8), weight_decay=0.5, lr=0.01)
    np.testing.assert_allclose(param.data, 0.5 * math.exp(-0.01 - 0.005), rtol=4e-4)
    assert (after == after[0]).all()


def test_the_bound_is_the_top_level_and_stays():
    values = np.linspace(0.5, 1, 50)
    _, _, param = one_step(LNS(16, 2048, zero="code"), values, -np.ones(50))
    bound = float(param.code.scales[0][0])
    assert bound == pytest.approx(3 * math.sqrt(np.mean(values**2)), rel=1e-3)
    optimizer = optim.Madam([param], lr=1.0)
    for _ in range(40):
        param.grad = -np.ones(50, np.float32)
        optimizer.step()
    assert (param.code.codes == param.code.format.top).all()
    again = float(param.code.scales[0][0])
    assert (param.data == np.float32(again)).all()


def test_signs_never_change_and_the_floor_holds():
    rng = np.random.default_rng(0)
    param = Parameter(rng.normal(size=300).astype(np.float32))
    param.live_as(LNS(10, 32, zero="code"), rounding="stochastic")
    optimizer = optim.Madam([param], lr=0.5)
    signs = np.sign(param.data)
    for _ in range(60):
        param.grad = (signs + 0.1 * rng.normal(size=300)).astype(np.float32)
        optimizer.step()
        assert (np.sign(param.code.codes) == signs).all()
    assert (np.abs(param.code.codes) == 1).mean() > 0.9


def test_zeros_are_redrawn_kept_or_refused():
    def zeros():
        coded = Parameter(np.zeros(5000, np.float32))
        coded.live_as(LNS(16, 2048, zero="code"))
        return [Parameter(np.zeros(5000, np.float32)), coded, Tensor(np.zeros(3, np.float32), requires_grad=True)]

    params = zeros()
    random.manual_seed(0)
    optim.Madam(params)
    for param in params:
        assert param.data.all()
    for param in params[:2]:
        assert param.data.std() == pytest.approx(0.2, rel=0.03) and abs(param.data.mean()) < 0.01
    assert (params[0].data != params[1].data).mean() > 0.9, "each tensor draws from a stream of its own"
    random.manual_seed(0)
    again = zeros()
    optim.Madam(again)
    assert (again[0].data == params[0].data).all()
    kept = zeros()
    optimizer = optim.Madam(kept, init_zeros="keep")
    for param in kept:
        param.grad = np.ones(param.shape, np.float32)
    optimizer.step()
    assert not any(param.data.any() for param in kept)
    with pytest.raises(ValueError, match=r"init_zeros: parameter number 0 is zero throughout"):
        optim.Madam(zeros(), init_zeros="raise")


def test_single_zeros_never_move():
    values = np.array([0.0, 0.5, -0.5], np.float32)
    for coded in (False, True):
        param = Parameter(values.copy())
        if coded:
            param.live_as(LNS(16, 2048, zero="code"))
        optimizer = optim.Madam([param])
        for _ in range(3):
            param.grad = np.ones(3, np.float32)
            optimizer.step()
        assert param.data[0] == 0 and abs(param.data[1]) < 0.5 < abs(param.data[2])


def test_a_gradient_that_is_always_zero_moves_nothing():
    param = Parameter(np.array([0.5, 0.25], np.float32))
    optimizer = optim.Madam([param])
    param.grad = np.array([0, 1], np.float32)
    optimizer.step()
    assert param.data[0] == 0.5 and param.data[1] < 0.25


def test_the_state_is_v_and_a_count():
    _, _, param = one_step(LNS(16, 2048, zero="code"), [0.5], [1])
    optimizer = optim.Madam([param, Parameter([1.0])])
    for p in optimizer.param_groups[0]["params"]:
        p.grad = np.ones(1, np.float32)
    optimizer.step()
    assert set(optimizer.state[0]) == {"step", "v"} and optimizer.state[0]["v"].dtype == np.float32
    assert set(optimizer.state[1]) == {"step", "v", "w_max"}


def test_codes_of_another_format_take_the_float_form():
    param = Parameter(np.array([0.5, -0.25], np.float32))
    param.live_as(Fixed(8))
    optimizer = optim.Madam([param], lr=1.0)
    param.grad = np.ones(2, np.float32)
    optimizer.step()
    np.testing.assert_allclose(param.data, [0.25, -0.5], atol=0.01)


@pytest.mark.parametrize(("options", "words"), [
    ({"beta": 1.0}, "beta: .*got 1.0"), ({"p_scale": 0}, "p_scale: .*got 0"), ({"g_bound": -1}, "g_bound: .*got -1"),
    ({"lr": -1}, "lr: .*got -1"), ({"round_gradient": "yes"}, "round_gradient: .*'yes'"),
    ({"init_zeros": "draw"}, "init_zeros: .*'draw'"),
])
def test_impossible_options_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        optim.Madam([Parameter([1.0])], **options)
