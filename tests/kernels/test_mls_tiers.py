"""The C kernels of MLS: every tier equals the NumPy twin by ==, any batch and threads; no multiply in shift loops."""
import re

import numpy as np
import pytest

from minilp.formats import MLS, NotFiniteError, Spec, Stream
from minilp.kernels import available_tiers, calls, set_num_threads, threads, use_backend, use_kernels

LENGTHS = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 65, 127, 129, 255, 1023)
FORMATS = [MLS(2, 1), MLS(2, 4), MLS(0, 4, group_man=0), MLS(1, 2, top="keep"), MLS(underflow="sudden"), MLS(3, 4)]


def numbers(rng, *shape):
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-14, 2, shape))
    return np.where(rng.random(shape) < 0.1, 0, x).astype(np.float32)


def in_both(run):
    with calls() as seen:
        c = run()
    assert [name for name in seen if name.startswith("mls")] and not [n for n in seen if n.endswith("[numpy]")]
    with use_backend("numpy"):
        return c, run()


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_encode(isa, fmt):
    """Codes of every length, of ties and of subnormals; nearest and stochastic."""
    rng = np.random.default_rng(0)
    for n in LENGTHS:
        x = numbers(rng, n)
        x[: n // 3] = rng.integers(-64, 65, n // 3) / 64 * np.abs(x).max()
        x[-1] *= np.float32(1e-38)
        for stream in (None, Stream(seed=n)):
            c, twin = in_both(lambda x=x, stream=stream: fmt.encode(x, stream=stream).codes)
            assert np.array_equal(c, twin), (n, stream)


def test_encode_layouts_and_groups(isa):
    rng = np.random.default_rng(1)
    x = numbers(rng, 19, 3, 4, 5)
    stored = [x, np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2), x[::-1, :, ::-1][::-1, :, ::-1]]
    for group in ("nc", "n", "c", "none"):
        for y in stored:
            for stream in (None, Stream(seed=2)):
                fmt = MLS(2, 4, group=group)
                c, twin = in_both(lambda f=fmt, y=y, s=stream: f.encode(y, stream=s))
                assert np.array_equal(c.codes, twin.codes)
                assert all(np.array_equal(a, b) for a, b in zip(c.scales, twin.scales, strict=True))
                assert np.array_equal(c.decode(), twin.decode())
    with pytest.raises(NotFiniteError):
        MLS().encode(np.array([1, np.inf], np.float32))


@pytest.mark.parametrize("kind", ["conv2d", "conv2d_input_grad", "conv2d_weight_grad"])
def test_contract(isa, kind):
    """Batches around the vector lengths, strides, even and odd widths, two thread counts."""
    rng = np.random.default_rng(3)
    before = threads()
    for i, batch in enumerate((1, 3, 4, 8, 15, 16, 17, 33)):
        fmt, other = FORMATS[i % 6], FORMATS[(i + i // 6) % 6]
        kernel, stride, padding, dilation, groups = [((3, 3), (1, 1), (1, 1), (1, 1), 1),
                                                     ((3, 3), (2, 2), (1, 1), (1, 1), 1),
                                                     ((1, 1), (2, 2), (0, 0), (1, 1), 1),
                                                     ((2, 4), (1, 3), (3, 2), (2, 1), 2)][i % 4]
        size = (9 + i % 2, 11 + i % 3)
        out = tuple((s + 2 * p - d * (k - 1) - 1) // st + 1
                    for s, p, d, k, st in zip(size, padding, dilation, kernel, stride, strict=True))
        act, weight, error = (batch, 6, *size), (10, 6 // groups, *kernel), (batch, 10, *out)
        a, b, extra = {"conv2d": (act, weight, None), "conv2d_input_grad": (error, weight, size),
                       "conv2d_weight_grad": (error, act, kernel)}[kind]
        qa, qb = fmt.encode(numbers(rng, *a)), other.encode(numbers(rng, *b))
        spec = Spec(kind, stride, padding, dilation, groups, extra)
        try:
            for n in (1, 2):
                set_num_threads(n)
                c, twin = in_both(lambda f=fmt, qa=qa, qb=qb, spec=spec: f.contract(qa, qb, spec))
                assert np.array_equal(c, twin), (batch, spec)
                with use_kernels("shift"):
                    assert np.array_equal(fmt.contract(qa, qb, spec), twin), (batch, spec)
        finally:
            set_num_threads(before)
        if kind != "conv2d_weight_grad":
            assert c.transpose(1, 2, 3, 0).flags.c_contiguous


def test_wide_rows_and_many_channels(isa):
    """More outputs than one band holds, more positions than a block, channels past the blocks of four."""
    rng = np.random.default_rng(4)
    fmt = MLS(2, 1)
    x, w, e = (fmt.encode(numbers(rng, *s)) for s in ((5, 3, 40, 37), (9, 3, 3, 3), (5, 9, 40, 37)))
    for a, b, spec in ((x, w, Spec("conv2d", padding=(1, 1))),
                       (e, w, Spec("conv2d_input_grad", padding=(1, 1), size=(40, 37))),
                       (e, x, Spec("conv2d_weight_grad", padding=(1, 1), size=(3, 3)))):
        c, twin = in_both(lambda a=a, b=b, spec=spec: fmt.contract(a, b, spec))
        assert np.array_equal(c, twin)


MULTIPLY = re.compile(r"^(v?p?i?mul\w*|v?pmadd\w*|v?pdp\w*|v?fn?m(add|sub)\w*|tdp\w*|v?dp\w*|v?i?div\w*|v?scalef\w*)$")


def mnemonics(objdump, pattern):
    """Function name -> mnemonics and called names, of the functions of the imported library that match."""
    import subprocess

    from minilp import _core
    text = subprocess.run([objdump, "-d", "--no-show-raw-insn", _core.__file__], capture_output=True, text=True,
                          check=True).stdout
    found = {}
    for part in re.split(r"\n(?=[0-9a-f]+ <)", text):
        head = re.match(r"[0-9a-f]+ <(.+)>:", part)
        if head and re.match(pattern, head.group(1)):
            found[head.group(1)] = re.findall(r"^\s+[0-9a-f]+:\s+(\S+)", part, re.M)
    return found


def test_no_multiply_in_the_group_scales(objdump):
    """The significands of two group scales: shifts and one add in every tier; no multiply, no call to one."""
    if not available_tiers():
        pytest.skip("no C core")
    loops = mnemonics(objdump, "mlp_mls_shift_")
    for tier in available_tiers()[:3]:  # the vector tiers
        for what in ("add", "wide", "chain"):
            assert any(re.match(rf"mlp_mls_shift_{what}_{tier}(\.|$)", name) for name in loops), (what, tier)
    for name, code in loops.items():
        assert len(code) > 10 and not [m for m in code if MULTIPLY.match(m) or m.startswith("call")], name
        assert [m for m in code if re.match(r"v?psll|shl|sal", m)], name
        assert [m for m in code if re.match(r"v?cvt(dq|qq|si)2(ps|ss)", m)], name


def test_control_the_emulated_loops_do_multiply(objdump):
    if not available_tiers():
        pytest.skip("no C core")
    for name, code in mnemonics(objdump, "mlp_mls_mac_").items():
        assert [m for m in code if MULTIPLY.match(m)], name
