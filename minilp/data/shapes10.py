"""shapes10: ten shapes in clutter, generated from a seed. The built-in set, so that everything runs offline.

Each 32 x 32 colour image shows one shape at a random place and size, turned by up to 33 degrees either way, in random
colours (lighter or darker than its background), over a shaded background with scattered dots, under pixel noise. No
single pixel says much, so a linear classifier stays near chance, while a small convolutional network learns it in a
few epochs.

The same pixels on every machine
--------------------------------
Random numbers are the raw 64-bit output of PCG64 seeded through SeedSequence, which NumPy promises not to change (NEP
19; the methods of Generator carry no such promise). Pixels are computed with float32 + - * / sqrt, comparisons and
rounding, one elementwise NumPy operation at a time: each is exactly specified by IEEE 754, so no library's sin or
exp, fused multiply-add or order of summation can change a bit. Rotations use the rational points of the circle,
((1-t^2)/(1+t^2), 2t/(1+t^2)).

Shapes are signed distances (negative inside) in a frame where the shape's radius is 1, of our own derivation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from minilp.data.dataset import Dataset, make_splits

SIZE = 32
"""Side of an image in pixels."""

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(u, v) -> signed distance, all of one shape, float32."""

_DOTS = 4
_PARAMS = 16 + 6 * _DOTS  # random numbers per image, pixel noise excluded
_CHUNK = 64  # images rendered at a time: 64 x 1024 float32 is 256 kB, so the temporaries stay in the second-level cache

# cos and sin of the five directions 90 + 72 k degrees, and of the three directions 90 + 120 k degrees.
_FIVE = (
    (0.0, 1.0),
    (-0.95105652, 0.30901699),
    (-0.58778525, -0.80901699),
    (0.58778525, -0.80901699),
    (0.95105652, 0.30901699),
)
_THREE = ((0.0, 1.0), (-0.86602540, -0.5), (0.86602540, -0.5))


def _length(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sqrt(u * u + v * v)


def _box(u: np.ndarray, v: np.ndarray, half_u: float, half_v: float) -> np.ndarray:
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def _circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _length(u, v) - 0.85


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _box(u, v, 0.75, 0.75)


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum.reduce([u * -c + v * -s for c, s in _THREE]) - 0.5


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # Inside a pentagram means inside at least four of the half-planes of its five lines: the second largest decides.
    planes = [u * -c + v * -s for c, s in _FIVE]
    largest = second = np.full_like(u, -4.0)
    for plane in planes:
        second = np.maximum(second, np.minimum(largest, plane))
        largest = np.maximum(largest, plane)
    return second - 0.34


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(_box(u, v, 1.0, 0.28), _box(u, v, 0.28, 1.0))


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs(_length(u, v) - 0.74) - 0.22


def _crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(_length(u - 0.25, v) - 0.95, 0.75 - _length(u - 0.75, v))


def _bar(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _box(u, v, 1.0, 0.27)


def _hourglass(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum((np.abs(u) - np.abs(v)) * 0.70710678, np.abs(v) - 0.8)


def _corner(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(_box(u + 0.5, v, 0.26, 0.8), _box(u, v + 0.54, 0.76, 0.26))


SHAPES: dict[str, Distance] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "crescent": _crescent,
    "bar": _bar,
    "hourglass": _hourglass,
    "corner": _corner,
}
"""Class name -> signed distance in the shape's own frame; the order is the order of the labels."""


@lru_cache(maxsize=2)
def load(seed: int = 0, train: int = 10_000, test: int = 2_000) -> tuple[Dataset, Dataset]:
    """Generate the set. About two seconds at the default size; kept in memory for the next call.

    Image i has label i mod 10. A shorter set is the beginning of a longer one of the same seed.

    Parameters
    ----------
    seed : int
        Not negative. The train and test splits come from separate streams of it.
    train, test : int
        Number of images, at least one each.

    Returns
    -------
    train, test : Dataset

    Raises
    ------
    ValueError
        An argument out of range.
    """
    for name, value, least in (("seed", seed, 0), ("train", train, 1), ("test", test, 1)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: got {value!r}; expected an integer of at least {least}")
    source = f"generated, seed {seed}"
    return make_splits("shapes10", tuple(SHAPES), _split(seed, 0, train), _split(seed, 1, test), source)


def _split(seed: int, split: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one split."""
    images = np.empty((count, 3, SIZE, SIZE), np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(SHAPES)
    for label, distance in enumerate(SHAPES.values()):
        mine = images[label :: len(SHAPES)]
        params = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(split, label, 0)))
        noise = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(split, label, 1)))
        for start in range(0, len(mine), _CHUNK):
            part = mine[start : start + _CHUNK]
            part[:] = _render(distance, _uniform(params, len(part)), _bytes(noise, len(part)))
    return images, labels


def _uniform(stream: np.random.PCG64, count: int) -> np.ndarray:
    """float32 (_PARAMS, count, 1) in [0, 1): the top 24 bits of each raw draw, so the conversion is exact."""
    raw = stream.random_raw(count * _PARAMS).reshape(count, _PARAMS)
    unit = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return np.ascontiguousarray(unit.T)[:, :, None]


def _bytes(stream: np.random.PCG64, count: int) -> np.ndarray:
    """uint8 (2, count, 3, SIZE*SIZE), least significant byte first whatever the machine."""
    raw = stream.random_raw(count * 6 * SIZE * SIZE // 8).astype("<u8").view(np.uint8)
    return raw.reshape(count, 2, 3, SIZE * SIZE).swapaxes(0, 1)


def _render(distance: Distance, unit: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Draw one chunk of one class. unit (_PARAMS, n, 1), noise (2, n, 3, P) -> uint8 (n, 3, SIZE, SIZE)."""
    draw = iter(unit)
    x = np.tile(np.arange(SIZE, dtype=np.float32), SIZE)[None] + 0.5  # pixel centres, (1, P)
    y = np.repeat(np.arange(SIZE, dtype=np.float32), SIZE)[None] + 0.5

    # Where, how large, at which angle: up to 33 degrees either way, 2 arctan 0.3.
    radius = next(draw) * 3.5 + 9.0
    room = SIZE - 1.7 * radius
    cx, cy = next(draw) * room + 0.85 * radius, next(draw) * room + 0.85 * radius
    t = next(draw) * 0.6 - 0.3
    scale = 1.0 / ((t * t + 1.0) * radius)
    cos, sin = (1.0 - t * t) * scale, 2.0 * t * scale
    u = (x - cx) * cos + (y - cy) * sin
    v = (y - cy) * cos - (x - cx) * sin
    inside = np.clip(0.5 - distance(u, v) * radius, 0.0, 1.0)[:, None]  # edges fade over one pixel

    # Colours: a level for the background, the shape's at least 100 away on the side that has room, a tint for each.
    level = next(draw) * 190.0 + 32.0
    step = next(draw) * 50.0 + 100.0
    step = np.where((next(draw) < 0.5) & (level > 112.0) | (level > 143.0), -step, step)
    back = np.stack([level + next(draw) * 60.0 - 30.0 for _ in range(3)], axis=1)
    front = np.stack([level + step + next(draw) * 60.0 - 30.0 for _ in range(3)], axis=1)
    slope_x, slope_y = next(draw) * 1.5 - 0.75, next(draw) * 1.5 - 0.75
    canvas = back + ((x - 16.0) * slope_x + (y - 16.0) * slope_y)[:, None]

    for _ in range(_DOTS):  # clutter behind the shape
        dx, dy = x - next(draw) * SIZE, y - next(draw) * SIZE
        cover = np.clip(next(draw) * 1.6 + 1.3 - _length(dx, dy), 0.0, 1.0)[:, None]
        tint = np.stack([next(draw) * 255.0 for _ in range(3)], axis=1)
        canvas += (tint - canvas) * cover

    canvas += (front - canvas) * inside
    # Sum of two bytes: a triangular distribution, standard deviation 104 before scaling.
    amplitude = (next(draw) * 0.08 + 0.02)[:, None]
    canvas += (noise[0].astype(np.float32) + noise[1].astype(np.float32) - 255.0) * amplitude
    return np.clip(np.rint(canvas), 0.0, 255.0).astype(np.uint8).reshape(-1, 3, SIZE, SIZE)
