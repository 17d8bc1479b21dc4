"""Augmentation of one batch of bytes: random crop with padding, and horizontal flip.

The recipe of the CIFAR papers: pad by 4 black pixels on every side, cut out the original size at a random place,
mirror half of the images. It works on uint8, before normalisation, so the padding is black, as in the usual PyTorch
pipelines.
"""

from __future__ import annotations

import numpy as np

PADDING = 4
"""Pixels of padding on every side before the crop."""


def crop_flip(images: np.ndarray, rng: np.random.Generator, padding: int = PADDING) -> np.ndarray:
    """Shift every image by up to `padding` pixels each way and mirror about half of them.

    Parameters
    ----------
    images : ndarray of uint8, shape (B, C, H, W)
        Not changed.
    rng : numpy.random.Generator
        Drawn from three times: rows, columns, flips, B values each.
    padding : int
        Largest shift in pixels, 0 or more.

    Returns
    -------
    ndarray of uint8, shape (B, C, H, W)
        C-contiguous.

    Raises
    ------
    ValueError
        Negative padding, or `images` without four dimensions.
    """
    if images.ndim != 4:
        raise ValueError(f"images: got shape {images.shape}; expected (B, C, H, W)")
    if padding < 0:
        raise ValueError(f"padding: got {padding}; expected 0 or more")
    batch, channels, height, width = images.shape
    rows = rng.integers(0, 2 * padding + 1, batch)
    columns = rng.integers(0, 2 * padding + 1, batch)
    flip = rng.integers(0, 2, batch).astype(bool)

    padded = np.zeros((batch, channels, height + 2 * padding, width + 2 * padding), np.uint8)
    padded[:, :, padding : padding + height, padding : padding + width] = images
    # Every possible crop as a view, (B, rows, columns, C, H, W); indexing it copies just the chosen ones.
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
    out = windows[np.arange(batch), rows, columns]
    out[flip] = out[flip][..., ::-1]
    return out
