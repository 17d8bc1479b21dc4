"""Every schedule against torch over 200 steps, and across a resume."""
import json

import numpy as np
import pytest

from minilp import optim
from minilp.autograd.parameter import Parameter

SCHEDULES = [
    ("StepLR", {"step_size": 30, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [150, 20, 90, 90], "gamma": 0.3}),
    ("CosineAnnealingLR", {"T_max": 200, "eta_min": 1e-3}),
    ("CosineAnnealingLR", {"T_max": 45}),
    ("LinearLR", {"start_factor": 0.01, "total_iters": 33}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 150}),
    ("ConstantLR", {"factor": 0.2, "total_iters": 17}),
    ("LambdaLR", {"lr_lambda": lambda t: 0.97 ** t}),
    ("OneCycleLR", {"max_lr": 0.4, "total_steps": 200}),
    ("OneCycleLR", {"max_lr": [0.4, 0.1], "epochs": 10, "steps_per_epoch": 20, "pct_start": 0.27,
                    "anneal_strategy": "linear", "base_momentum": 0.7, "div_factor": 10.0, "final_div_factor": 100.0}),
    ("OneCycleLR", {"max_lr": 0.4, "total_steps": 201, "three_phase": True, "pct_start": 0.4}),
    ("OneCycleLR", {"max_lr": 0.4, "total_steps": 200, "cycle_momentum": False}),
]


def optimizer(name="SGD"):
    params = [{"params": [Parameter([1.0])]}, {"params": [Parameter([2.0])], "lr": 0.02}]
    return optim.SGD(params, lr=0.1, momentum=0.9) if name == "SGD" else optim.AdamW(params, lr=0.1)


def torch_optimizer(torch, name="SGD"):
    leaf = torch.ones(2, requires_grad=True)
    params = [{"params": [leaf]}, {"params": [leaf.detach().clone().requires_grad_()], "lr": 0.02}]
    return torch.optim.SGD(params, lr=0.1, momentum=0.9) if name == "SGD" else torch.optim.AdamW(params, lr=0.1)


def walk(opt, scheduler, steps, after=lambda: None):
    """(learning rate, momentum) of both groups at each step."""
    rows = []
    for _ in range(steps):
        rows.append([value for g in opt.param_groups for value in (g["lr"], g.get("momentum") or g["betas"][0])])
        after()
        scheduler.step()
    return np.array(rows)


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@pytest.mark.parametrize(("name", "options"), SCHEDULES)
def test_200_steps_equal_torch(torch, name, options, kind):
    a, b = optimizer(kind), torch_optimizer(torch, kind)
    ours = walk(a, getattr(optim, name)(a, **options), 200)
    theirs = walk(b, getattr(torch.optim.lr_scheduler, name)(b, **options), 200, after=b.step)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-13)
    assert len(np.unique(ours[:, 0])) > 1


def test_inverse_square_root_is_the_transformers_schedule():
    """Vaswani et al. 2017, equation 3: d^-0.5 min(step^-0.5, step warmup^-1.5), whose peak is (d warmup)^-0.5."""
    warmup, width = 40, 256
    params = [{"params": [Parameter([1.0])], "lr": (width * warmup) ** -0.5}, {"params": [Parameter([2.0])]}]
    opt = optim.AdamW(params, lr=0.5)
    ours = walk(opt, optim.InverseSqrtLR(opt, warmup_steps=warmup), 200)
    step = np.arange(1, 201)
    np.testing.assert_allclose(ours[:, 0], width**-0.5 * np.minimum(step**-0.5, step * warmup**-1.5), rtol=1e-12)
    assert ours[:, 2].max() == ours[warmup - 1, 2] == 0.5
    with pytest.raises(ValueError, match="warmup_steps"):
        optim.InverseSqrtLR(opt, 0)


def test_warm_up_then_cosine_equals_torch(torch):
    a, b, schedules = optimizer(), torch_optimizer(torch), torch.optim.lr_scheduler
    ours = walk(a, optim.SequentialLR(a, [optim.LinearLR(a, 0.1, total_iters=10), optim.CosineAnnealingLR(a, 190)],
                                      [10]), 200)
    theirs = walk(b, schedules.SequentialLR(b, [schedules.LinearLR(b, 0.1, total_iters=10),
                                                schedules.CosineAnnealingLR(b, 190)], [10]), 200, after=b.step)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-13)


def sequential(opt):
    return optim.SequentialLR(opt, [optim.ConstantLR(opt), optim.StepLR(opt, 7), optim.CosineAnnealingLR(opt, 50)],
                              [11, 60])


@pytest.mark.parametrize("make", [sequential, *(
    lambda opt, name=name, options=options: getattr(optim, name)(opt, **options) for name, options in SCHEDULES)])
@pytest.mark.parametrize("cut", [0, 1, 10, 73])
def test_resume_gives_the_same_bits(make, cut):
    a = optimizer()
    whole = walk(a, make(a), 150)
    b = optimizer()
    first = make(b)
    walk(b, first, cut)
    saved, saved_optimizer = json.loads(json.dumps(first.state_dict())), b.state_dict()
    c = optimizer()
    second = make(c)
    c.load_state_dict(saved_optimizer)
    second.load_state_dict(saved)
    np.testing.assert_array_equal(walk(c, second, 150 - cut), whole[cut:])


def test_one_cycle_edges():
    """One step, and a warm-up of exactly one step, which divides by zero if the phases are taken literally."""
    for total, pct_start in [(1, 0.3), (10, 0.1), (2, 0.5), (3, 0.0), (4, 1.0)]:
        opt = optimizer()
        rates = walk(opt, optim.OneCycleLR(opt, max_lr=1.0, total_steps=total, pct_start=pct_start), total)[:, 0]
        assert np.isfinite(rates).all()
        assert rates.max() <= 1.0 + 1e-12


def test_one_cycle_ends():
    opt = optimizer()
    scheduler = optim.OneCycleLR(opt, max_lr=1.0, total_steps=3)
    for _ in range(3):
        scheduler.step()
    with pytest.raises(ValueError, match="step 4 of a cycle of 3"):
        scheduler.step()


@pytest.mark.parametrize(("make", "error", "text"), [
    (lambda o: optim.StepLR(o, 0), ValueError, "step_size"),
    (lambda o: optim.StepLR("adam", 1), TypeError, "optimizer.*str"),
    (lambda o: optim.LinearLR(o, 0.0), ValueError, "start_factor"),
    (lambda o: optim.CosineAnnealingLR(o, 0), ValueError, "T_max"),
    (lambda o: optim.LambdaLR(o, [float]), ValueError, "lr_lambda: expected 2"),
    (lambda o: optim.OneCycleLR(o, 1.0), ValueError, "total_steps"),
    (lambda o: optim.OneCycleLR(o, 1.0, 10, anneal_strategy="sine"), ValueError, "anneal_strategy.*sine"),
    (lambda o: optim.OneCycleLR(o, [1.0], 10), ValueError, "max_lr: expected 2"),
    (lambda o: optim.SequentialLR(o, [optim.StepLR(o, 1)], [3]), ValueError, "milestones: expected 0"),
    (lambda o: optim.SequentialLR(o, [optim.StepLR(optimizer(), 1)], []), ValueError, "schedulers"),
])
def test_errors_name_the_argument(make, error, text):
    with pytest.raises(error, match=text):
        make(optimizer())
