"""minilp bench kernels, quantise, scale, import: their rows, on small sizes; never their absolute times."""
import json

import numpy as np
import pytest

from minilp import bench, cli
from minilp.bench import imports, kernels, peak, quantise, scale
from minilp.kernels import available_tiers


def test_kernels_rows(tmp_path, capsys, needs_c):
    file, picture = tmp_path / "rows.json", tmp_path / "rows.png"
    assert cli.main(["bench", "kernels", "--format", "fp32", "--format", "pot:bits=4", "--shape", "64ch-8x8", "--kind",
                     "weight_grad", "--kind", "input_grad", "--isa", "portable", "--isa", "auto", "--kernels", "shift",
                     "--batch-size", "32", "--rounds", "2", "--json", str(file), "--plot", str(picture)]) == 0
    rows, out = json.loads(file.read_text()), capsys.readouterr().out
    assert len(rows) == 2 * 2 * 2 and "64ch-8x8" in out and picture.exists() == ("no plot" not in out)
    assert len({row["ms_min"] for row in rows}) == 8
    for row in rows:
        assert row["macs"] == 32 * 64 * 64 * 64 * 9
        assert row["gmac_per_s"] == pytest.approx(row["macs"] / row["ms_min"] / 1e6)
        assert row["clock"] == "processor" and row["sgemm_gmac_per_s"] > 0 and 0 < row["ms_min"] <= row["ms_median"]
        assert (row["of_peak"] is None) == (row["isa"] == "portable")
        if row["of_peak"] is not None:
            assert row["of_peak"] == pytest.approx(row["gmac_per_s"] / row["peak_gmac_per_s"])
            assert row["of_peak"] < 1.1  # or the loop behind the peak is no peak
            assert row["peak"] == ("float32" if row["format"] == "fp32" else "add16")
        if row["format"] != "fp32":
            assert row["ran"] and all("portable" in name for name in row["ran"]) == (row["isa"] == "portable")


def test_a_timed_contraction_is_the_contraction(needs_c):
    """Every kind and a strided shape: the kernels' result on decoded codes is that of float64."""
    from minilp.formats import PoT, Spec
    from minilp.formats.values import float_contraction

    for shape in (kernels.SHAPES["32ch-16x16"], kernels.SHAPES["16to32-s2"], kernels.SHAPES["16to32-1x1"]):
        x, w, e = kernels._tensors(shape, 2)
        pot = PoT(bits=4)
        x64, w64, e64 = (pot.encode(t).decode().astype(np.float64) for t in (x, w, e))
        geometry = {"stride": (shape.stride,) * 2, "padding": (shape.kernel // 2,) * 2}
        want = {"forward": float_contraction(x64, w64, Spec("conv2d", **geometry)),
                "input_grad": float_contraction(e64, w64, Spec("conv2d_input_grad", size=x.shape[2:], **geometry)),
                "weight_grad": float_contraction(e64, x64, Spec("conv2d_weight_grad", size=w.shape[2:], **geometry))}
        for kind in kernels.KINDS:
            got = kernels.contraction("pot:bits=4", shape, kind, (x, w, e))()
            assert np.array_equal(got, want[kind].astype(np.float32)), (shape, kind)


def test_sgemm_does_the_same_number_of_multiplications():
    for shape in kernels.SHAPES.values():
        for kind in kernels.KINDS:
            a, b = kernels.unfolded(shape, kind, 3)
            assert a[1] == b[0] and a[0] * a[1] * b[1] == shape.macs(3), (shape, kind)
    assert bench.SHAPES["16ch-32x32"].macs(1) == 16 * 16 * 9 * 1024


def test_peaks_are_measured(needs_c, monkeypatch):
    monkeypatch.setattr(peak, "ROUNDS", 20_000)
    assert peak.peaks("portable") == {}
    for isa in available_tiers()[1:]:
        found = peak.peaks(isa)
        assert set(found) == set(peak.KINDS) and all(0.5 < rate < 1e5 for rate in found.values()), found
    once, again = peak.peaks(), peak.peaks()
    assert once != again or not once


def test_quantise_rows(tmp_path, capsys, needs_c):
    file = tmp_path / "rows.json"
    assert cli.main(["bench", "quantise", "--format", "pot", "--format", "mx", "--batch-size", "2", "--rounds", "2",
                     "--json", str(file), "--plot", str(tmp_path / "p.png")]) == 0
    rows, out = json.loads(file.read_text()), capsys.readouterr().out
    assert [row["what"] for row in rows] == ["encode nearest", "encode stochastic", "decode"] * 2
    assert len({row["ms_min"] for row in rows}) == 6 and "GB/s" in out
    for row in rows:
        assert row["gb_per_s"] == pytest.approx(row["elements"] * 4 / row["ms_min"] / 1e6)
        assert row["of_copy"] == pytest.approx(row["gb_per_s"] / row["copy_gb_per_s"]) and row["elements"] == 32768


def test_scale_rows(needs_c, tmp_path):
    rows = bench.bench_scale(series=("batch", "width"), batch_sizes=(1, 2), widths=(1, 2), batch_size=1, steps=1,
                             threads=1)
    assert [(row["series"], row["value"]) for row in rows] == [("batch", 1), ("batch", 2), ("width", 1), ("width", 2)]
    narrow, wide = rows[2:]
    assert narrow["macs"] == 40_813_184 and 3.5 < wide["macs"] / narrow["macs"] < 4
    assert wide["relative"] == pytest.approx(wide["ns_per_mac"] / narrow["ns_per_mac"]) and narrow["relative"] == 1
    assert rows[0]["relative"] == pytest.approx(rows[0]["ns_per_image"] / rows[1]["ns_per_image"])
    assert rows[0]["ns_per_image"] == pytest.approx(rows[0]["ms_median"] * 1e6)
    assert all(row["peak_bytes"] > 0 for row in rows) and "of the time a MAC at the first" in scale.table(rows)
    assert scale.plot(rows, str(tmp_path / "p.png")) == (tmp_path / "p.png").exists()


def test_depth_is_held_against_a_straight_line():
    rows = [{"value": depth, "ms_median": ms} for depth, ms in ((20, 20.0), (32, 32.0), (44, 44.0), (56, 66.0))]
    scale._relate("depth", rows)
    assert rows[-1]["relative"] > 0.03 and rows[2]["relative"] < -0.03
    scale._relate("depth", rows[:2])
    assert [row["relative"] for row in rows[:2]] == pytest.approx([0, 0], abs=1e-12)  # two points lie on their line
    scale._relate("depth", rows[:1])
    assert rows[0]["relative"] is None


def test_import_row(tmp_path, capsys):
    assert cli.main(["bench", "import", "--rounds", "1", "--json", str(tmp_path / "rows.json")]) == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["ratio"] == pytest.approx(row["ms_median"] / row["numpy_ms_median"]) and row["numpy_ms_median"] > 10
    assert imports.table([row]) in capsys.readouterr().out


@pytest.mark.parametrize(("words", "expected"), [
    (["kernels", "--shape", "round"], ["shape", "'round'", "64ch-8x8"]),
    (["kernels", "--kind", "sideways"], ["--kind", "'sideways'", "weight_grad"]),
    (["kernels", "--format", "posit"], ["format", "'posit'", "pot"]),
    (["kernels", "--rounds", "0"], ["rounds must be at least 1, got 0"]),
    (["quantise", "--format", "pot:bots=3"], ["bots", "bits"]),
    (["quantise", "--isa", "mmx"], ["--isa", "'mmx'", "avx2"]),
    (["scale", "--series", "colour"], ["--series", "'colour'", "width"]),
    (["scale", "--steps", "0"], ["steps must be at least 1, got 0"]),
    (["import", "--rounds", "x"], ["--rounds", "integer", "'x'"]),
    (["lunch"], ["lunch", "quantise"]),
])
def test_wrong_arguments(words, expected, capsys):
    try:
        code = cli.main(["bench", *words])
    except SystemExit as stop:
        code = stop.code
    err = capsys.readouterr().err
    assert code == 2 and all(word in err for word in expected), err


def test_scale_names_a_depth_that_does_not_exist():
    with pytest.raises(ValueError, match=r"depth: .*'resnet21'"):
        bench.bench_scale(series=("depth",), depths=(21,))


def test_no_plot_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setattr("minilp.figures.available", lambda: False)
    row = {"format": "pot", "what": "decode", "isa": "avx2", "gb_per_s": 1.0}
    assert quantise.plot([row], str(tmp_path / "p")) is False
    assert not list(tmp_path.iterdir())
