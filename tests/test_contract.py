"""The contraction room: what is multiplied are codes, in both directions, and the result is exact."""
from dataclasses import dataclass

import numpy as np
import pytest

from minilp import contract, models, nn, recipe, use_backend, use_kernels
from minilp.autograd import Tensor, no_grad
from minilp.formats import Fixed, Format, PoT, QTensor, Spec
from minilp.kernels import backend, calls
from minilp.recipe import Recipe, Role
from minilp.roles import LayerRecipe, Roles
from minilp.transforms import PRC, WBC

RNG = np.random.default_rng(7)


def layer(roles, name="layer"):
    return LayerRecipe(roles, name)


def coded(roles, x, w, grad, **kw):
    """Forward and backward of one convolution under ``roles``: (y, dx, dw)."""
    x, w = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
    y = contract.conv2d(x, w, None, kw.get("stride", (1, 1)), (1, 1), (1, 1), 1, layer(roles))
    y.backward(grad)
    return y.data, x.grad, w.grad


def float64_oracle(a, b, spec):
    """The contraction of the decoded operands in float64, then rounded once to float32."""
    wide = contract.float_contraction(a.decode().astype(np.float64), b.decode().astype(np.float64), spec)
    return wide.astype(np.float32)


@pytest.fixture(params=["c", "numpy"])
def both_backends(request):
    if request.param == "c":
        request.getfixturevalue("needs_c")
    with use_backend(request.param):
        yield request.param


@pytest.mark.parametrize(("backend", "family", "words", "prefix"), [
    ("c", "shift", "shift/add", "pot_shift_"), ("c", "emulate", "int8 digits", "pot_emulate_"),
    ("numpy", "emulate", "NumPy", "pot_int64_")])
def test_every_contraction_of_a_real_resnet20_step_is_exact(request, backend, family, words, prefix, monkeypatch):
    """potq 5/5/5: forward, input gradient and weight gradient of every layer == float64 of the decoded operands.

    Only kernels of the family that was asked for run, and ``executed`` names it.
    """
    if backend == "c":
        request.getfixturevalue("needs_c")
    seen = []
    multiply = contract.multiply

    def hooked(a, b, spec):
        result = multiply(a, b, spec)
        seen.append((a, b, spec, result.copy()))
        return result

    monkeypatch.setattr(contract, "multiply", hooked)
    model = recipe.apply("potq", models.build("resnet20"))
    x = RNG.standard_normal((4, 3, 32, 32)).astype(np.float32)
    with contract.executed() as how, calls() as kernels, use_backend(backend), use_kernels(family):
        nn.functional.cross_entropy(model(Tensor(x)), np.array([1, 2, 3, 4])).backward()
    contractions = [name for name in kernels if name.startswith("pot_") and "code" not in name]
    assert len(contractions) == 3 and all(name.startswith(prefix) for name in contractions), kernels
    assert set(how) == {f"{kind}: PoT(bits=5) x PoT(bits=5) in integers ({words})" for kind in (
        "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "linear", "linear_input_grad", "linear_weight_grad")}, how
    layers = len([m for _, m in model.named_modules() if hasattr(m, "set_recipe")])
    assert layers == 22
    assert len(seen) == 3 * layers - 1  # nobody needs the gradient of the images
    for a, b, spec, result in seen:
        assert isinstance(a, QTensor) and isinstance(b, QTensor)
        assert a.format == b.format == PoT(5)
        assert np.array_equal(result, float64_oracle(a, b, spec)), spec


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("bits", [3, 4, 5, 6])
def test_both_backends_give_the_same_bits(needs_c, bits, stride):
    x = RNG.standard_normal((5, 3, 9, 8)).astype(np.float32)
    w = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    grad = RNG.standard_normal((5, 4, *((9, 8) if stride == (1, 1) else (5, 4)))).astype(np.float32)
    r = recipe.potq(bits).roles
    with use_backend("c"):
        ours = coded(r, x, w, grad, stride=stride)
    with use_backend("numpy"):
        twin = coded(r, x, w, grad, stride=stride)
    for mine, theirs in zip(ours, twin, strict=True):
        assert np.array_equal(mine, theirs)


def test_activations_wait_for_backward_as_codes_not_floats():
    x = Tensor(RNG.standard_normal((2, 3, 8, 8)).astype(np.float32), requires_grad=True)
    w = Tensor(RNG.standard_normal((4, 3, 3, 3)).astype(np.float32), requires_grad=True)
    y = contract.conv2d(x, w, None, (1, 1), (1, 1), (1, 1), 1, layer(recipe.potq().roles))
    act, weight, _ = y.grad_fn.saved
    assert act.value.codes.dtype == np.int8 and act.value.codes.nbytes == x.size
    assert weight.value.codes.dtype == np.int8
    assert act.raw is None and weight.raw is None


def test_a_float_operand_makes_its_contractions_float32_and_leaves_the_others_coded():
    x = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)
    w = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    with contract.executed() as how, use_backend("numpy"):
        coded(Roles(weight=PoT(5), act=PoT(5), error=None), x, w, RNG.standard_normal((2, 4, 8, 8)).astype(np.float32))
    assert how == {"conv2d: PoT(bits=5) x PoT(bits=5) in integers (NumPy)": 1, "conv2d_input_grad: float32": 1,
                   "conv2d_weight_grad: float32": 1}


def test_a_scale_along_a_summed_axis_is_refused_by_name():
    fmt = PoT(5)
    x = fmt.encode(RNG.standard_normal((2, 3, 8, 8)).astype(np.float32), keep=(1,))
    w = fmt.encode(RNG.standard_normal((4, 3, 3, 3)).astype(np.float32))
    with pytest.raises(ValueError, match=r"first operand .* axis 1"):
        contract.multiply(x, w, Spec("conv2d", padding=(1, 1)))


def test_a_weight_scale_per_output_channel_is_fine_forward_and_refused_in_the_input_gradient():
    roles = Roles(weight=Role(PoT(5), keep=(0,)), act=PoT(5), error=PoT(5))
    x, w = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32), RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    w *= np.array([1, 30, 900, 27000], np.float32).reshape(4, 1, 1, 1)
    xt = Tensor(x, requires_grad=True)
    y = contract.conv2d(xt, Tensor(w, requires_grad=True), None, (1, 1), (1, 1), (1, 1), 1, layer(roles))
    a, b = PoT(5).encode(x), PoT(5).encode(w, keep=(0,))
    assert np.array_equal(y.data, float64_oracle(a, b, Spec("conv2d", padding=(1, 1))))
    with pytest.raises(ValueError, match=r"conv2d_input_grad.*axis 0"):
        y.backward(np.ones_like(y.data))


def test_linear_takes_leading_axes_as_tokens():
    q = layer(recipe.potq().roles)
    x = RNG.standard_normal((2, 5, 7)).astype(np.float32)
    w = Tensor(RNG.standard_normal((3, 7)).astype(np.float32), requires_grad=True)
    b = Tensor(np.array([1, 2, 3], np.float32), requires_grad=True)
    xt = Tensor(x, requires_grad=True)
    y = contract.linear(xt, w, b, q)
    flat = contract.linear(Tensor(x.reshape(10, 7)), w, b, q)
    assert y.shape == (2, 5, 3) and np.array_equal(y.data.reshape(10, 3), flat.data)
    y.backward(np.ones_like(y.data))
    assert xt.grad.shape == x.shape and np.array_equal(b.grad, [10, 10, 10])


def test_shape_and_dtype_errors_name_what_came():
    q = layer(recipe.potq().roles)
    w = Tensor(np.ones((4, 3, 3, 3), np.float32))
    with pytest.raises(ValueError, match=r"\(2, 5, 8, 8\).*expects \(N, 3, H, W\)"):
        contract.conv2d(Tensor(np.ones((2, 5, 8, 8), np.float32)), w, None, (1, 1), (1, 1), (1, 1), 1, q)
    with pytest.raises(ValueError, match="expects 7 features"):
        contract.linear(Tensor(np.ones((2, 5), np.float32)), Tensor(np.ones((3, 7), np.float32)), None, q)
    with pytest.raises(TypeError, match="x is float64"):
        contract.linear(Tensor(np.ones((2, 7))), Tensor(np.ones((3, 7), np.float32)), None, q)


def test_nan_names_role_and_layer():
    x = np.ones((2, 3, 4, 4), np.float32)
    x[1, 2, 3, 3] = np.nan
    with pytest.raises(ValueError, match=r"act of layer stem\.conv: .*NaN"):
        contract.conv2d(Tensor(x), Tensor(np.ones((4, 3, 3, 3), np.float32)), None, (1, 1), (1, 1), (1, 1), 1,
                        layer(recipe.potq().roles, "stem.conv"))


def test_prc_zeroes_the_gradient_outside_and_gives_it_to_gamma():
    """Against the definition, element by element, on the NCHW order that the user sees."""
    roles = Roles(weight=PoT(5), act=Role(PoT(5), before=(PRC(init=0.5),)), error=PoT(5))
    q = layer(roles)
    x = Tensor(RNG.standard_normal((3, 2, 6, 5)).astype(np.float32), requires_grad=True)
    w = Tensor(RNG.standard_normal((4, 2, 3, 3)).astype(np.float32), requires_grad=True)
    y = contract.conv2d(x, w, None, (1, 1), (1, 1), (1, 1), 1, q)
    grad = RNG.standard_normal(y.shape).astype(np.float32)
    y.backward(grad)
    largest = np.abs(x.data).max()
    inside = np.abs(x.data) <= np.float32(0.5) * largest
    assert 0 < inside.sum() < x.size
    clipped = np.clip(x.data, -np.float32(0.5) * largest, np.float32(0.5) * largest)
    a, b, e = PoT(5).encode(clipped), PoT(5).encode(w.data), PoT(5).encode(grad)
    full = float64_oracle(e, b, Spec("conv2d_input_grad", padding=(1, 1), size=(6, 5)))
    assert np.array_equal(y.data, float64_oracle(a, b, Spec("conv2d", padding=(1, 1))))
    assert np.array_equal(x.grad, np.where(inside, full, 0))
    gamma = q.parameters()["act_prc_gamma"]
    expected = largest * np.sum(np.where(inside, 0, full.astype(np.float64) * np.sign(x.data)))
    assert np.isclose(gamma.grad, expected, rtol=1e-6)
    assert gamma.weight_decay == 0.0 and gamma.bounds == (0.125, 1.0)


@pytest.mark.parametrize("axis", ["layer", "out_channel"])
def test_wbc_takes_the_mean_off_the_weights(axis):
    w = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32) + 3
    x = RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)
    roles = Roles(weight=Role(PoT(5), before=(WBC(axis),)), act=PoT(5), error=PoT(5))
    y = coded(roles, x, w, np.ones((2, 4, 5, 5), np.float32))[0]
    mean = w.mean(axis=None if axis == "layer" else (1, 2, 3), dtype=np.float64, keepdims=True).astype(np.float32)
    expected = float64_oracle(PoT(5).encode(x), PoT(5).encode(w - mean), Spec("conv2d", padding=(1, 1)))
    assert np.array_equal(y, expected)


def test_stochastic_rounding_repeats_inside_its_step_and_differs_outside():
    roles = Roles(weight=PoT(4), act=Role(PoT(4), rounding="stochastic"), error=Role(PoT(4), rounding="stochastic"))
    x, w = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32), RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    g = RNG.standard_normal((2, 4, 8, 8)).astype(np.float32)
    q = layer(roles)

    def step(number):
        xt, wt = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
        with contract.rounding_context(3, number):
            y = contract.conv2d(xt, wt, None, (1, 1), (1, 1), (1, 1), 1, q)
        y.backward(g)  # the backward draws belong to the step of the forward
        return y.data, wt.grad

    first, second, again = step(1), step(2), step(1)
    for a, b, c in zip(first, second, again, strict=True):
        assert np.array_equal(a, c) and not np.array_equal(a, b)
    loose = [contract.conv2d(Tensor(x), Tensor(w), None, (1, 1), (1, 1), (1, 1), 1, q).data for _ in range(2)]
    assert not np.array_equal(*loose)


@dataclass(frozen=True)
class Halves(Format):
    """A user's format: integers times 1/2, with a straight-through rule of its own."""

    bits = 8

    def encode(self, x, *, keep=(), stream=None, scales=None):
        codes = np.clip(np.rint(x * 2), -127, 127).astype(np.int8)
        return QTensor(self, codes, (), x.shape, keep)

    def decode(self, q):
        return q.codes.astype(np.float32) / 2

    def ste(self, x, grad):
        return np.where(np.abs(x) > 1, 0, grad).astype(np.float32)


def test_a_format_without_a_kernel_is_emulated_and_says_so():
    with contract.executed() as how:
        y, dx, dw = coded(Roles(Halves(), Halves(), Halves()), RNG.standard_normal((2, 3, 5, 5)).astype(np.float32),
                          RNG.standard_normal((4, 3, 3, 3)).astype(np.float32), np.ones((2, 4, 5, 5), np.float32))
    assert all(key.endswith(contract.EMULATED) for key in how) and sum(how.values()) == 3
    assert y.dtype == dx.dtype == dw.dtype == np.float32


def test_formats_with_tables_run_through_the_table_kernel_exactly(both_backends):
    """Different widths, and one scale per output channel: forward it is folded in, dx sums over it and is refused."""
    x, w = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32), RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    g = RNG.standard_normal((2, 4, 8, 8)).astype(np.float32)
    with contract.executed() as how, calls() as ran:
        y, dx, dw = coded(Roles(weight=Fixed(4), act=Fixed(8), error=Fixed(6)), x, w, g)
    tier = backend().isa if both_backends == "c" else "numpy"
    assert how == {"conv2d: Fixed(bits=8) x Fixed(bits=4) in integers (table kernel)": 1,
                   "conv2d_input_grad: Fixed(bits=6) x Fixed(bits=4) in integers (table kernel)": 1,
                   "conv2d_weight_grad: Fixed(bits=6) x Fixed(bits=8) in integers (table kernel)": 1}
    assert {name for name in ran if "conv" in name} == {
        f"table_{kind}[{tier}]" for kind in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad")}
    qx, qw, qg = Fixed(8).encode(x), Fixed(4).encode(w), Fixed(6).encode(g)
    padding = (1, 1)
    assert np.array_equal(y, float64_oracle(qx, qw, Spec("conv2d", padding=padding)))
    assert np.array_equal(dx, float64_oracle(qg, qw, Spec("conv2d_input_grad", padding=padding, size=(8, 8))))
    assert np.array_equal(dw, float64_oracle(qg, qx, Spec("conv2d_weight_grad", padding=padding, size=(3, 3))))
    kept = Fixed(4).encode(w * np.float32([1, 8, 3, 100]).reshape(-1, 1, 1, 1), keep=(0,))
    spec = Spec("conv2d", padding=padding)
    with contract.executed() as how:
        assert np.array_equal(contract.multiply(qx, kept, spec), float64_oracle(qx, kept, spec))
        with pytest.raises(ValueError, match="keeps its own scale along axis 0, which this contraction sums over"):
            contract.multiply(qg, kept, Spec("conv2d_input_grad", padding=padding, size=(8, 8)))
    assert list(how) == ["conv2d: Fixed(bits=8) x Fixed(bits=4) in integers (table kernel)"]


def test_powers_of_two_meet_integers_in_integers(both_backends):
    """Images in 8-bit fixed point under power-of-two weights and errors: every product is a shift, and exact."""
    x, w = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32), RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    g = RNG.standard_normal((2, 4, 8, 8)).astype(np.float32)
    with contract.executed() as how:
        y, dx, dw = coded(Roles(weight=PoT(5), act=Fixed(8), error=PoT(5)), x, w, g)
    mixed = "Fixed(bits=8) in integers (table kernel)"
    assert {f"conv2d_weight_grad: PoT(bits=5) x {mixed}",
            "conv2d: Fixed(bits=8) x PoT(bits=5) in integers (table kernel)"} < set(how)
    qx, qw, qg = Fixed(8).encode(x), PoT(5).encode(w), PoT(5).encode(g)
    assert np.array_equal(y, float64_oracle(qx, qw, Spec("conv2d", padding=(1, 1))))
    assert np.array_equal(dx, float64_oracle(qg, qw, Spec("conv2d_input_grad", padding=(1, 1), size=(8, 8))))
    assert np.array_equal(dw, float64_oracle(qg, qx, Spec("conv2d_weight_grad", padding=(1, 1), size=(3, 3))))


def test_a_users_straight_through_rule_sees_the_float_tensor():
    x = RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)
    _, dx, _ = coded(Roles(weight=PoT(5), act=Halves(), error=PoT(5)), x,
                     RNG.standard_normal((4, 3, 3, 3)).astype(np.float32), np.ones((2, 4, 5, 5), np.float32))
    assert np.all(dx[np.abs(x) > 1] == 0) and np.any(dx[np.abs(x) <= 1] != 0)


def test_wgrad_role_codes_the_weight_gradient():
    x, w = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32), RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    dw = coded(Roles(PoT(5), PoT(5), PoT(5), wgrad=PoT(4)), x, w, np.ones((2, 4, 8, 8), np.float32))[2]
    plain = coded(Roles(PoT(5), PoT(5), PoT(5)), x, w, np.ones((2, 4, 8, 8), np.float32))[2]
    assert np.array_equal(dw, PoT(4).encode(plain).decode())


def test_q_none_is_float_bit_for_bit():
    model = models.build("small_cnn")
    x = Tensor(RNG.standard_normal((2, 3, 32, 32)).astype(np.float32))
    with no_grad():
        before = model.eval()(x).data
        recipe.apply("potq", model)
        coded_output = model(x).data
        recipe.apply(Recipe(), model)
        after = model(x).data
    assert np.array_equal(before, after) and not np.array_equal(before, coded_output)
