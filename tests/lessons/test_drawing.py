"""Formats look the same in every picture, and differ also in grey; pictures are PNG with a caption."""
import numpy as np
import pytest

from minilp import figures
from minilp import lessons as lab


def test_colours_are_told_apart_in_grey():
    def lightness(colour):
        """CIE L* of a hexadecimal sRGB colour, 0 to 100."""
        parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
        return 116 * luminance ** (1 / 3) - 16 if luminance > 0.008856 else 903.3 * luminance
    shades = sorted(lightness(colour) for colour, _, _ in figures.STYLES.values())
    assert np.diff(shades).min() >= 5 and shades[-1] < 85
    markers = [marker for _, marker, _ in figures.STYLES.values()]
    assert len(set(markers)) == len(markers)


def test_unknown_formats_are_refused():
    assert figures.style("pot") == {"color": figures.STYLES["pot"][0], "marker": "s", "linestyle": "-"}
    with pytest.raises(ValueError, match=r"style: expected one of fp32, .*, got 'posit'"):
        figures.style("posit")


def test_pictures_are_png_with_named_axes_and_a_caption(needs_lessons):
    rows = {"a": ("pot", np.array([-1.0, 0, 0.5, 1])), "b": ("lns", np.array([0.25, 1]))}
    for log, shown in ((False, [-1, 0, 0.5, 1]), (True, [0.5, 1])):
        picture = lab.number_lines(rows, "value", "Two rows.", log=log)
        axes = picture.figure.axes[0]
        assert list(axes.lines[0].get_xdata()) == shown and axes.get_xlabel() == "value"
        assert axes.lines[0].get_color() == figures.STYLES["pot"][0]
        assert picture._repr_png_()[:4] == b"\x89PNG" and repr(picture) == "Picture: Two rows."
        assert picture.figure.get_suptitle() == "Two rows."


def test_a_format_that_comes_twice_gets_another_stroke(needs_lessons):
    curves = {name: (style, [1, 2], [1, 2]) for name, style in (("a", "fixed"), ("b", "fixed"), ("c", "pot"))}
    axes = lab.lines(curves, "x", "y", "Three.").figure.axes[0]
    looks = [(line.get_color(), line.get_linestyle()) for line in axes.lines]
    assert len(set(looks)) == 3 and looks[0][0] == looks[1][0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
