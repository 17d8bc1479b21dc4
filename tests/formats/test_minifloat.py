"""Small floats: code for code those of ml_dtypes, exact sums where promised, and the written order elsewhere."""
import numpy as np
import pytest

from minilp import cli, contract, recipe, use_backend
from minilp.formats import Fixed, Minifloat, Spec, Stream
from minilp.kernels import calls, set_num_threads, threads
from minilp.kernels.backend import vector_tier
from minilp.testing import check_format, contractions, exact
from minilp.training import machine

RNG = np.random.default_rng(21)
ONE = (np.zeros((1,), np.int32),)
TWINS = {(4, 3): "float8_e4m3fn", (5, 2): "float8_e5m2", (3, 4): "float8_e3m4", (2, 1): "float4_e2m1fn",
         (2, 3): "float6_e2m3fn", (3, 2): "float6_e3m2fn"}


def test_numbers_of_ocp():
    assert Minifloat(4, 3).range == (2.0**-9, 448) and Minifloat(5, 2).range == (2.0**-16, 57344)
    assert Minifloat(2, 1).range == (0.5, 6) and Minifloat(2, 3).range == (0.125, 7.5)
    assert Minifloat(3, 2).range == (0.0625, 28) and Minifloat(4, 3).levels == 253
    assert [str(Minifloat(4, 3)), str(Minifloat(5, 2))] == ["E4M3", "E5M2"]


@pytest.mark.parametrize(("exp", "man"), TWINS)
def test_code_for_code_as_ml_dtypes(exp, man):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    fmt, twin = Minifloat(exp, man), np.dtype(getattr(ml_dtypes, TWINS[exp, man]))
    codes = fmt.codes()
    values = fmt.decode(type(fmt.encode(np.zeros(1, np.float32)))(fmt, codes, ONE))
    assert np.array_equal(fmt.patterns(codes).view(twin).astype(np.float32), values)
    unused = np.setdiff1d(np.arange(2**fmt.bits), fmt.patterns(codes)).astype(np.uint8).view(twin).astype(np.float32)
    assert (~np.isfinite(unused) | (unused == 0)).all(), "a pattern that is a number is not used"
    low, high = fmt.range
    x = np.concatenate([RNG.standard_normal(4000) * np.exp2(RNG.uniform(np.log2(low) - 3, np.log2(high), 4000)),
                        values, (values[1:] + values[:-1]) / 2, np.nextafter(values, 0)]).astype(np.float32)
    x = np.clip(x, -high, high)
    q = fmt.encode(x, scales=ONE)
    assert np.array_equal(q.decode(), x.astype(twin).astype(np.float32))
    plain = q.codes != 0  # the twin keeps the sign of zero
    assert np.array_equal(fmt.patterns(q.codes)[plain], x.astype(twin).view(np.uint8)[plain])


@pytest.mark.parametrize(("exp", "man"), [*TWINS, (2, 5), (3, 1), (4, 1), (5, 1)])
def test_the_laws_hold(exp, man):
    check_format(Minifloat(exp, man))


@pytest.mark.parametrize(("exp", "man"), [(1, 3), (6, 1), (4, 4), (4, 0)])
def test_shapes_out_of_range(exp, man):
    with pytest.raises(ValueError, match=f"got exp={exp}, man={man}"):
        Minifloat(exp, man)


def test_the_largest_magnitude_stays_in_range():
    for largest in (1e-30, 0.1, 447, 448, 449, 1e30):
        x = np.array([largest, -largest / 3], np.float32)
        q = Minifloat().encode(x)
        assert np.abs(q.decode()[0] - largest) <= np.float32(largest) / 16
        assert 2.0 ** -8 < abs(q.decode()[0]) / 2.0 ** int(q.scales[0][0]) <= 448


def test_stochastic_rounding_is_the_same_on_both_backends(needs_c):
    x, drawn = RNG.standard_normal((3, 5, 4, 2)).astype(np.float32), []
    for name in ("c", "numpy"):
        with use_backend(name):
            drawn.append(Minifloat(5, 2).encode(x, stream=Stream(seed=3)).codes)
    assert np.array_equal(*drawn)


def test_a_table_where_values_are_small_integers():
    assert Minifloat(4, 3).table() is None and Minifloat(3, 2).table() is None
    assert Minifloat(2, 1).table()[Minifloat(2, 1).codes()].tolist() == [
        -12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12]
    a = Minifloat(2, 1).encode(RNG.standard_normal((3, 4)).astype(np.float32))
    with contract.executed() as how:
        got = contract.multiply(a, a, Spec("linear"))
    assert list(how) == ["linear: E2M1 x E2M1 in integers (table kernel)"]
    assert np.array_equal(got, exact.contraction(a.decode(), a.decode(), Spec("linear")))


def test_reports_say_which_arithmetic_ran():
    q = {man: Minifloat(7 - man, man).encode(np.ones((1, 1), np.float32)) for man in (2, 3)}
    for a, b, words in ((3, 3, "E4M3 x E4M3 by exact sums"), (3, 2, "E4M3 x E5M2 by exact products and float32 sums")):
        with contract.executed() as how:
            contract.multiply(q[a], q[b], Spec("linear"))
        assert list(how) == [f"linear: {words}"]
    first_line = machine.kernels(recipe.fp8())
    assert first_line == "contractions by exact sums, contractions by exact products and float32 sums"


def test_sums_of_e4m3_longer_than_one_float64_sum_may_be():
    """Products of 448 * 448 in pieces of 2^53 / (448 * 448 * 2^18), the last of another kind."""
    depth = 200_001
    x = np.full((1, depth), 448, np.float32)
    x[0, -1] = 2.0**-9
    q = Minifloat().encode(x, scales=(np.zeros((1, 1), np.int32),))
    got = contract.multiply(q, q, Spec("linear")).item()
    assert got == exact.contraction(x, x, Spec("linear")).item()


def loop(left, right):
    """float32 sums of 32 products at a time, ascending."""
    out = np.zeros((len(left), right.shape[1]), np.float32)
    for i, j in np.ndindex(*out.shape):
        total = np.float32(0)
        for start in range(0, left.shape[1], 32):
            part = np.float32(0)
            for k in range(start, min(start + 32, left.shape[1])):
                part = np.float32(part + np.float32(left[i, k] * right[k, j]))
            total = np.float32(total + part)
        out[i, j] = total
    return out


@pytest.mark.parametrize("depth", [1, 31, 32, 33, 100])
def test_sums_with_e5m2_run_in_the_written_order(isa, depth):
    before = threads()
    error = Minifloat(5, 2).encode(RNG.standard_normal((5, depth)).astype(np.float32))
    weight = Minifloat(4, 3).encode(RNG.standard_normal((depth, 37)).astype(np.float32))
    want = loop(error.decode(), weight.decode())
    for n in (1, 2):
        set_num_threads(n)
        try:
            with calls() as ran:
                got = contract.multiply(error, weight, Spec("linear_input_grad"))
        finally:
            set_num_threads(before)
        assert np.array_equal(got, want) and ran == {f"minifloat_chunks_conv2d_input_grad[{vector_tier()}]": 1}
    with use_backend("numpy"):
        assert np.array_equal(contract.multiply(error, weight, Spec("linear_input_grad")), want)


def test_convolutions_with_e5m2_are_the_same_bits_in_c_and_numpy(isa):
    for spec, a_shape, b_shape in contractions():
        for keep in ((), (spec.kept[0],)):
            a = Minifloat(5, 2).encode(RNG.standard_normal(a_shape).astype(np.float32), keep=keep)
            b = Minifloat(4, 3).encode(RNG.standard_normal(b_shape).astype(np.float32))
            with contract.executed() as how:
                got = contract.multiply(a, b, spec)
            with use_backend("numpy"):
                assert np.array_equal(got, contract.multiply(a, b, spec)), spec
            assert list(how) == [f"{spec.kind}: E5M2 x E4M3 by exact products and float32 sums"]
            want = exact.contraction(a.decode(), b.decode(), spec)
            bound = exact.contraction(np.abs(a.decode()), np.abs(b.decode()), spec) * (60 * 2.0**-24)
            assert (np.abs(got - want) <= bound).all()


@pytest.mark.parametrize(("a", "b", "names"), [
    ((4, 3), (4, 3), {"fp8_mul": 1, "int64_add": 1}), ((4, 3), (5, 2), {"fp8_mul": 1, "fp32_add": 1}),
    ((5, 2), (5, 2), {"fp8_mul": 1, "fp32_add": 1}), ((3, 4), (3, 4), {"fp8_mul": 1, "int32_add": 1}),
    ((2, 1), (2, 3), {"fp6_mul": 1, "int32_add": 1})])
def test_cost_names_the_accumulator_that_sums(a, b, names):
    assert Minifloat(*a).cost(Minifloat(*b)) == Minifloat(*b).cost(Minifloat(*a)) == names


def test_cost_with_another_format_is_unknown():
    with pytest.raises(NotImplementedError, match=r"E4M3 .* Fixed\(bits=8\)"):
        Minifloat().cost(Fixed(8))


def test_explain_of_the_recipe_is_that_of_its_weights(capsys):
    assert cli.main(["explain", "fp8", "0.3", "-0.7"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "E4M3: value = (-1)^sign * 1.mantissa * 2^(exponent - 7) * 2^scale, subnormals 0.mantissa * 2^-6; 253 values",
        "a           0.3: sign 0, exponent 1111 (15, normal), mantissa 010, pattern 0x7A, scale 2^-10, decodes to "
        "0.3125",
        "b           -0.7: sign 1, exponent 1111 (15, normal), mantissa 011, pattern 0xFB, scale 2^-9, decodes to "
        "-0.6875",
        "sign        0 XOR 1 = 1",
        "significand 10/8 * 11/8 = 110/64   (4 by 4 bits, exact)",
        "exponent    8 + 8 = 16",
        "product     -112640, exact",
        "accumulator 0 - 29527900160 = -29527900160, INT64 in steps of 2^-18; the sum is exact and rounded once",
        "scale       * 2^(-10 + -9) = 2^-19, once per output",
        "result      -0.214844   (exact product -0.21)"]


@pytest.mark.parametrize("shape", [(5, 2), (3, 4), (2, 1), (4, 3)])
def test_explain_ends_with_the_product_of_the_decoded_factors(shape):
    fmt = Minifloat(*shape)
    for a, b in ((0.3, -0.7), (-1e-3, -5.0), (0.0, 2.0), (3e4, 1.0)):
        values = [float(fmt.encode(np.array([x], np.float32)).decode()[0]) for x in (a, b)]
        lines = fmt.explain(a, b).splitlines()
        assert lines[-1].startswith(f"result      {values[0] * values[1]:g} "), lines
        assert ("float32" in lines[-3]) == (fmt.exp == 5) and ("zero" in lines[1]) == (a == 0)
