"""Attention's products in the contraction room: batches of matrices are the single products, on every tier, exactly."""
import numpy as np
import pytest

from minilp import contract, kernels, use_backend, use_kernels
from minilp.formats import LNS, MLS, MX, Fixed, Minifloat, PoT, QTensor, Spec
from minilp.multiply import multiply
from minilp.testing import exact

FORMATS = [PoT(5), PoT(4), PoT(3), Fixed(8), Fixed(4), Minifloat(4, 3), Minifloat(5, 2), Minifloat(2, 1), MLS(),
           MLS(2, 4), MLS(group="none"), MX("e2m1"), MX("e3m2"), MX("int8"), MX("e2m1", block=5)]
SLOW = [PoT(6), PoT(5, accumulate="int32"), Fixed(12), LNS(path="bins"), MX("e4m3")]
KINDS = {"scores": ((3, 7, 20), (3, 33, 20)), "scores_query_grad": ((3, 7, 33), (3, 33, 20)),
         "scores_key_grad": ((3, 7, 33), (3, 7, 20)), "context": ((3, 37, 5), (3, 5, 64)),
         "context_probability_grad": ((3, 37, 64), (3, 5, 64)), "context_value_grad": ((3, 37, 5), (3, 37, 64))}
SINGLE = {"nt": "linear", "nn": "linear_input_grad", "tn": "linear_weight_grad"}


def operands(fmt, kind, seed=0, spread=3.0):
    """Two coded tensors of magnitudes over some octaves, every matrix with a scale of its own."""
    rng, spec, found = np.random.default_rng(seed), Spec(kind), []
    for position, shape in enumerate(KINDS[kind]):
        x = (rng.standard_normal(shape) * 2.0 ** rng.normal(0, spread, (*shape[:2], 1))).astype(np.float32)
        x[rng.random(shape) < 0.1] = 0
        axis, run = spec.run(position, shape)
        found.append(fmt.encode_along(x, axis, run=run) if fmt.blocks_along_sum else fmt.encode(x, keep=(0,)))
    return (*found, spec)


def one_by_one(a, b, spec):
    return np.stack([multiply(a.matrix(i), b.matrix(i), Spec(SINGLE[spec.layout])) for i in range(a.shape[0])])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_equals_the_single_products_on_every_tier(fmt, kind, isa):
    """Whatever the single product's order and rounding are; exact formats also equal unlimited integers."""
    a, b, spec = operands(fmt, kind)
    with kernels.calls() as calls, contract.executed() as how:
        result = multiply(a, b, spec)
    assert [name for name in calls if name.startswith("batched_")] and "one by one" not in str(how)
    np.testing.assert_array_equal(result, one_by_one(a, b, spec))
    with use_backend("numpy"):
        np.testing.assert_array_equal(multiply(a, b, spec), result)
    if fmt.exact_contract:
        np.testing.assert_array_equal(result, exact.contraction(a.decode(), b.decode(), spec))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fmt", [*FORMATS, *SLOW], ids=str)
def test_equals_the_decoded_operands(fmt, kind):
    """The float64 contraction of what the codes stand for: to the bit where sums are exact, else to float32."""
    a, b, spec = operands(fmt, kind, seed=1, spread=0.5)
    result = multiply(a, b, spec)
    wide = contract.float_contraction(a.decode().astype(np.float64), b.decode().astype(np.float64), spec)
    if fmt.exact_contract and fmt not in SLOW:
        np.testing.assert_array_equal(result, wide.astype(np.float32))
    else:
        np.testing.assert_allclose(result, wide, rtol=1e-5, atol=1e-5 * np.abs(wide).max())


@pytest.mark.parametrize("fmt", SLOW, ids=str)
def test_formats_without_a_batch_kernel_go_matrix_by_matrix(fmt):
    a, b, spec = operands(fmt, "scores")
    with contract.executed() as how:
        result = multiply(a, b, spec)
    assert next(iter(how)).endswith("one by one")
    np.testing.assert_array_equal(result, one_by_one(a, b, spec))


def test_shift_add_and_float64_are_the_same_integers(needs_c):
    a, b, spec = operands(PoT(5), "context")
    results = {}
    for family, words in (("shift", "(shift/add)"), ("emulate", "(integers in float64)")):
        with use_kernels(family), contract.executed() as how, kernels.calls() as calls:
            results[family] = multiply(a, b, spec)
        assert next(iter(how)).endswith(words)
        assert all(name.startswith("batched_shift" if family == "shift" else "batched_exact") for name in calls)
    np.testing.assert_array_equal(results["shift"], results["emulate"])


@pytest.mark.parametrize("fmt", [PoT(5), Fixed(8), Minifloat(5, 2), MLS(), MX("int8")], ids=str)
def test_any_strides_threads_and_lengths(fmt, needs_c):
    """Views of transposed memory, one thread or two, and sizes around a tile; empty batches and sums too."""
    for m, n, k in ((1, 1, 1), (4, 16, 3), (5, 17, 32), (3, 15, 33), (2, 3, 0)):
        rng = np.random.default_rng(m)
        x, y = rng.standard_normal((2, m, k)).astype(np.float32), rng.standard_normal((2, n, k)).astype(np.float32)
        a, b = ((fmt.encode_along(o, 2) if fmt.blocks_along_sum else fmt.encode(o, keep=(0,))) for o in (x, y))
        plain = multiply(a, b, Spec("scores"))
        turned = [QTensor(fmt, q.codes.transpose(2, 1, 0).copy().transpose(2, 1, 0), q.scales, keep=q.keep)
                  for q in (a, b)]
        before = kernels.threads()
        try:
            for workers in (1, 2):
                kernels.set_num_threads(workers)
                np.testing.assert_array_equal(multiply(*turned, Spec("scores")), plain)
        finally:
            kernels.set_num_threads(before)
        assert plain.shape == (2, m, n)
    empty = fmt.encode_along(x[:0], 2) if fmt.blocks_along_sum else fmt.encode(x[:0], keep=(0,))
    assert multiply(empty, empty, Spec("scores")).shape == (0, 2, 2)


def test_scales_far_apart_take_the_careful_way():
    """Group scales that leave float32's normal range between them: matrix by matrix, the same definition."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2, 6, 8)) * 2.0 ** np.linspace(-90, 20, 6)[None, :, None]).astype(np.float32)
    a, b = MLS().encode(x, keep=(0,)), MLS().encode(x[:, ::-1], keep=(0,))
    with contract.executed() as how:
        result = multiply(a, b, Spec("scores_key_grad"))
    assert "one by one" in next(iter(how))
    wide = np.matmul(a.decode().astype(np.float64).swapaxes(1, 2), b.decode().astype(np.float64))
    np.testing.assert_allclose(result, wide, rtol=1e-5, atol=1e-6 * np.abs(wide).max())


@pytest.mark.parametrize("kind", KINDS)
def test_powers_of_two_times_integers_are_exact(kind, isa):
    a, _, spec = operands(PoT(5), kind)
    _, b, _ = operands(Fixed(8), kind, seed=1)
    with contract.executed() as how:
        result = multiply(a, b, spec)
    assert list(how) == [f"{kind}: PoT(bits=5) x Fixed(bits=8) in integers (table kernel)"]
    np.testing.assert_array_equal(result, exact.contraction(a.decode(), b.decode(), spec))
    with use_backend("numpy"):
        np.testing.assert_array_equal(multiply(a, b, spec), result)


def test_a_scale_along_the_sum_is_refused():
    x = np.random.default_rng(0).standard_normal((2, 6, 8)).astype(np.float32)
    for fmt in (PoT(5), Fixed(8), Minifloat(4, 3), LNS()):
        a = fmt.encode(x, keep=(0, 1))
        assert multiply(a, a, Spec("scores")).shape == (2, 6, 6)
        with pytest.raises(ValueError, match="sums over"):
            multiply(a, a, Spec("scores_key_grad"))
