"""The hybrid conversion's tables, the GEMMs it equals, the narrow accumulator, and what the wrapper refuses."""
import pathlib
import sys

import numpy as np
import pytest

from minilp.kernels import KernelError, use_backend
from minilp.kernels.lns_bins import lns_contract, lut_table

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from lns_oracles import codes, problem

BACKENDS = ("c", "numpy")
EXACT = 2.0 ** (np.arange(8) / 8)
TABLES = {  # gamma 8: constants, largest, mean and rms relative error in percent, SQNR in dB, least-squares gain
    1: ([1, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875], 6.07, 4.00, 4.47, 27.1, 1.0395),
    2: ([1, 1.125, 1.25, 1.375, 1.41421, 1.59099, 1.76777, 1.94454], 6.03, 3.58, 4.26, 27.4, 1.0359),
    4: ([1, 1.125, 1.18921, 1.33786, 1.41421, 1.59099, 1.68179, 1.89202], 3.16, 1.58, 2.24, 32.9, 1.0158),
}


@pytest.mark.parametrize("lut", TABLES)
def test_hybrid_tables_have_the_published_errors(lut):
    constants, largest, mean, rms, _, _ = TABLES[lut]
    table = lut_table(8, lut)
    assert np.abs(table - constants).max() < 6e-6
    error = 100 * (table / EXACT - 1)
    assert (error >= 0).all()
    assert abs(error.max() - largest) < 0.006
    assert abs(error.mean() - mean) < 0.006
    assert abs(np.sqrt((error ** 2).mean()) - rms) < 0.006


def test_full_tables_are_exact():
    assert (lut_table(8) == EXACT).all() and (lut_table(8, 8) == EXACT).all()
    assert (lut_table(16, 16)[::2] == EXACT).all()
    assert (lut_table(1, 1) == 1).all()


def encode(x):
    """8 bits, gamma 8, the largest magnitude on the top code."""
    e = 127 + np.rint(8 * np.log2(np.abs(x) / np.abs(x).max()))
    return (np.sign(x) * (np.clip(e, 0, 127) + 1)).astype(np.int16)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lut", TABLES)
def test_dot_products_have_the_published_noise(needs_c, backend, lut):
    """Gaussian dot products of length 256 against exact ones: SQNR and gain within the sampling error of 4096."""
    rng = np.random.default_rng(1)
    a, b = encode(rng.standard_normal((64, 256))), encode(rng.standard_normal((64, 256)))
    call = {"gamma_a": 8, "gamma_b": 8, "scale": 1e-8}
    with use_backend(backend):
        exact, got = (lns_contract("linear", a, b, lut=n, **call).astype(np.float64) for n in (8, lut))
    power = (exact ** 2).mean()
    assert abs(10 * np.log10(power / ((got - exact) ** 2).mean()) - TABLES[lut][4]) < 0.5
    assert abs((got * exact).mean() / power - TABLES[lut][5]) < 0.003


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gamma", [2, 8, 16])
def test_one_product_is_its_table_entry(needs_c, backend, gamma):
    """Every pair of exponents: sign, shift and table entry, nothing else."""
    e = np.arange(3 * gamma)
    a, b = (e + 1).astype(np.int16)[:, None], (-e - 1).astype(np.int16)[:, None]
    p = e[:, None] + e
    for lut in (n for n in (1, 2, 4, 8, 16) if n <= gamma):
        want = -lut_table(gamma, lut)[p % gamma] * 2.0 ** (p // gamma)
        with use_backend(backend):
            got = lns_contract("linear", a, b, gamma_a=gamma, gamma_b=gamma, scale=1.0, lut=lut)
        assert (got == want.astype(np.float32)).all()


@pytest.mark.parametrize("lut", [1, 2, 4, 8])
def test_hybrid_is_a_few_float_gemms(needs_c, lut):
    """The constants of a product as a matrix over both remainders have rank 8 / lut: as many GEMMs give the sums."""
    rng = np.random.default_rng(2)
    a, b = codes(rng, (16, 200), 128), codes(rng, (12, 200), 128)
    e = np.arange(8)
    constants = lut_table(8, lut)[(e[:, None] + e) % 8] * 2.0 ** (e[:, None] + e >= 8)
    u, size, v = np.linalg.svd(constants)
    rank = 8 // lut
    assert (size[rank:] < 1e-13).all() and size[rank - 1] > 1e-6
    (sign_a, r_a), (sign_b, r_b) = ((np.sign(x) * 2.0 ** ((np.abs(x) - 1) >> 3), (np.abs(x) - 1) & 7) for x in (a, b))
    want = sum((sign_a * (u[:, k] * size[k])[r_a]) @ (sign_b * v[k][r_b]).T for k in range(rank))
    bound = 4 * np.abs(sign_a) @ np.abs(sign_b).T
    got = lns_contract("linear", a, b, gamma_a=8, gamma_b=8, scale=2.0 ** -31, lut=lut)
    assert (np.abs(got - want * 2.0 ** -31) <= (np.abs(want) * 2.0 ** -24 + bound * 2.0 ** -48) * 2.0 ** -31).all()


def accumulate(products, gamma, lut, bits, shift):
    """The narrow accumulator over Python integers: products are (sign, exponent sum) in order, sign 0 for zero."""
    low, total, overflows = gamma // lut, 0, 0
    top = 2 ** (bits - 1)
    for start in range(0, len(products), 32):
        part = 0
        for sign, p in products[start:start + 32]:
            q, r = divmod(int(p), gamma)
            mitchell = gamma + r % low if low > 1 else 1
            part += int(sign) * mitchell * round(2.0 ** ((r - r % low) / gamma) * 256) * 2 ** q
        total += part // (2 ** shift * 256 * (gamma if low > 1 else 1))
        if not -top <= total < top:
            overflows += 1
            total = max(-top, min(total, top - 1))
    return total, overflows


def products(x, y):
    """(sign, exponent sum) of two rows of codes."""
    return list(zip(np.sign(x).astype(int) * np.sign(y), np.abs(x).astype(int) + np.abs(y) - 2, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lut", [None, 1, 4])
def test_narrow_accumulator_saturates_and_counts(needs_c, backend, lut):
    """Rows of large products of one sign saturate; mixed rows do not; floors, not rounds, below zero too."""
    rng = np.random.default_rng(3)
    a, b = codes(rng, (5, 300), 128), codes(rng, (4, 300), 128)
    a[0], b[0] = 128, np.abs(b[0])
    b[0] = np.maximum(b[0], 120)
    a[1], b[1] = np.where(np.arange(300) < 150, -126, 121), 127
    with use_backend(backend):
        got, overflows = lns_contract("linear", a, b, gamma_a=8, gamma_b=8, scale=2.0 ** -31, lut=lut, accumulator=24,
                                      return_overflows=True)
    want = [[accumulate(products(x, y), 8, lut or 8, 24, 14) for y in b] for x in a]
    assert (got == np.array([[t * 2.0 ** -17 for t, _ in row] for row in want], np.float32)).all()
    assert overflows == sum(n for row in want for _, n in row) > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_narrow_accumulator_walks_in_the_stated_order(needs_c, backend):
    """(c, ky, kx) forward, (o, ky, kx) for the input gradient, (n, y, x) for the weight gradient; padding counts."""
    rng = np.random.default_rng(4)
    case = problem(rng, 3, 4, 5, (4, 5), tops=(127, 127, 127))
    call = {"gamma_a": 8, "gamma_b": 8, "scale": 2.0 ** -31, "accumulator": 18, "accumulator_shift": 20,
            "return_overflows": True}
    act, weight, _ = case["conv2d"]
    error = case["conv2d_input_grad"][0]
    wide, wide_error = (np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))) for x in (act, error))

    def rows(kind):
        if kind == "conv2d":
            for n, o, y, x in np.ndindex(3, 5, 4, 5):
                yield (n, o, y, x), wide[n, :, y:y + 3, x:x + 3], weight[o]
        elif kind == "conv2d_input_grad":
            for n, c, y, x in np.ndindex(3, 4, 4, 5):
                yield (n, c, y, x), wide_error[n, :, y:y + 3, x:x + 3][:, ::-1, ::-1], weight[:, c]
        else:
            for o, c, ky, kx in np.ndindex(5, 4, 3, 3):
                yield (o, c, ky, kx), error[:, o], wide[:, c, ky:ky + 4, kx:kx + 5]

    for kind, (a, b, kw) in case.items():
        with use_backend(backend):
            got, overflows = lns_contract(kind, a, b, **kw, **call)
        total = 0
        for index, left, right in rows(kind):
            # the input gradient's row runs over the kernel's taps in ascending order, the error's backwards
            value, count = accumulate(products(left.ravel(), right.ravel()), 8, 8, 18, 20)
            assert got[index] == np.float32(value * 2.0 ** -11), (kind, index)
            total += count
        assert overflows == total, kind


@pytest.mark.parametrize("backend", BACKENDS)
def test_saturation_warns_where_it_is_not_returned(needs_c, backend):
    """20 vectors of 0.84 times the accumulator's range each: all but the first saturate."""
    a = np.full((1, 640), 128, np.int16)
    with use_backend(backend):
        with pytest.warns(RuntimeWarning, match="19 additions saturated the 24-bit accumulator"):
            got = lns_contract("linear", a, a, gamma_a=8, gamma_b=8, scale=1.0, accumulator=24)
        assert got == np.float32((2 ** 23 - 1) * 2.0 ** 14)
        with pytest.raises(KernelError, match="int64 is proven safe up to 62"):
            lns_contract("linear", a, a, gamma_a=4, gamma_b=4, scale=1.0, accumulator=24)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_agree_on_the_narrow_accumulator(needs_c, backend):
    """Strides, groups, dilation and mixed gammas, hybrid and exact: the other backend's bits and count."""
    rng = np.random.default_rng(5)
    other = BACKENDS[1 - BACKENDS.index(backend)]
    for more in ({"groups": 2}, {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)}):
        for kind, (a, b, kw) in problem(rng, 5, 4, 6, (7, 6), tops=(60, 120, 90), **more).items():
            call = {"gamma_a": 4, "gamma_b": 8, "scale": 1e-5, "accumulator": 16, "accumulator_shift": 12,
                    "return_overflows": True, **kw}
            for lut in (None, 2):
                with use_backend(backend):
                    got, n = lns_contract(kind, a, b, lut=lut, **call)
                with use_backend(other):
                    want, m = lns_contract(kind, a, b, lut=lut, **call)
                assert (got == want).all() and n == m, kind


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"kind": "conv3d"}, ValueError, "kind must be one of"),
    ({"a": np.zeros((2, 3, 4, 4), np.float32)}, TypeError, "a must be an int8, int16 or int32 .*, got float32"),
    ({"b": [[1]]}, TypeError, "b must be an int8, int16 or int32 array of codes, got list"),
    ({"gamma_a": 3}, ValueError, "gamma_a must be a power of two, at least 1, got 3"),
    ({"gamma_b": 0}, ValueError, "gamma_b must be a power of two"),
    ({"gamma_b": 2 ** 16}, ValueError, "gamma_b must be at most"),
    ({"lut": 16}, ValueError, "lut must be at most gamma, 8, got 16"),
    ({"lut": 3}, ValueError, "lut must be a power of two"),
    ({"scale": np.inf}, ValueError, "scale must be finite"),
    ({"scale": "big"}, TypeError, "scale must be a number"),
    ({"scale": np.ones((2, 3, 2, 2))}, ValueError, r"scale must broadcast against the result \(2, 4, 2, 2\)"),
    ({"accumulator": 64}, ValueError, "accumulator must be an int from 8 to 48, got 64"),
    ({"accumulator_shift": -1}, ValueError, "accumulator_shift must be an int from 0 to 40"),
    ({"return_overflows": True}, ValueError, "accumulator=24 only"),
    ({"groups": 2}, ValueError, "do not split into 2 groups"),
    ({"stride": (0, 1)}, ValueError, "stride must be a pair"),
    ({"size": (4, 4)}, ValueError, "size must be None"),
    ({"kind": "linear"}, ValueError, "must have 2 axes"),
    ({"kind": "linear", "a": np.zeros((2, 3), np.int8), "padding": (1, 1)}, ValueError, "takes no size"),
], ids=lambda v: str(list(v)) if isinstance(v, dict) else None)
def test_wrapper_names_what_is_wrong(change, error, words):
    call = {"kind": "conv2d", "a": np.zeros((2, 3, 4, 4), np.int8), "b": np.zeros((4, 3, 3, 3), np.int16), "gamma_a": 8,
            "gamma_b": 8, "scale": 1.0, **change}
    kind, a, b = (call.pop(k) for k in ("kind", "a", "b"))
    with pytest.raises(error, match=words):
        lns_contract(kind, a, b, **call)
