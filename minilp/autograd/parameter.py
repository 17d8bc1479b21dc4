"""Parameter: a tensor that a module owns and an optimizer steps. Its values are floats, or the codes of a format."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minilp.autograd.tensor import Tensor

if TYPE_CHECKING:  # the engine knows no format: a parameter keeps a QTensor and asks the format that came with it
    from minilp.formats import Format, QTensor


class Parameter(Tensor):
    """A tensor that requires a gradient and shows up in ``Module.parameters()``.

    Parameters
    ----------
    data : array_like
        Initial value; lists and integers become float32.
    requires_grad : bool
        Whether the optimizer may move it.
    weight_decay : float, optional
        Replaces the optimizer's weight decay for this parameter; None leaves the group's.
    bounds : tuple of float, optional
        Closed interval that the optimizer clamps it to after every step.

    Attributes
    ----------
    name : str or None
        Dotted name inside its module tree, set when the module is walked.
    rounding : {"nearest", "stochastic"}
        How an update is rounded while the parameter lives as codes.
    state_role : Role or None
        How the optimizer's memory of this parameter is coded after every step; None is float32.

    Notes
    -----
    After :meth:`live_as` the parameter *is* its integer codes (:attr:`code`); no float array is kept. ``data`` is then
    decoded anew at every access and read-only, and new values come in by :meth:`write` or as codes.
    """

    name: str | None
    weight_decay: float | None
    bounds: tuple[float, float] | None

    def __init__(self, data: Any, requires_grad: bool = True, *, weight_decay: float | None = None,
                 bounds: tuple[float, float] | None = None) -> None:
        self._code: QTensor | None = None
        self._fixed_scales = False
        super().__init__(data, requires_grad=requires_grad)
        self.name = None
        self.weight_decay = weight_decay
        self.bounds = bounds
        self.rounding = "nearest"
        self.state_role: Any = None

    # What it holds

    @property
    def data(self) -> np.ndarray:
        """ndarray: the values; while the parameter lives as codes, a read-only array decoded at each access."""
        if self._code is None:
            return self._data
        values = self._code.decode()
        values.flags.writeable = False
        return values

    @data.setter
    def data(self, value: np.ndarray) -> None:
        if self._code is not None:
            raise TypeError(f"data of {self._label}: it lives as codes of {self._code.format}; write(values) encodes "
                            f"new ones, live_as(None) makes it floats again")
        # Through the base's property: a setter of a base class cannot be inherited alone.
        Tensor.data.fset(self, value)  # type: ignore[attr-defined]

    @property
    def code(self) -> QTensor | None:
        """QTensor or None: the codes that the parameter lives as; None where it is a float array.

        Assigning puts other codes of the same format and shape in their place, scales included.
        """
        return self._code

    @code.setter
    def code(self, code: QTensor) -> None:
        if self._code is None:
            raise TypeError(f"code of {self._label}: it is a float array; live_as(format) comes first")
        if code.format != self._code.format or code.shape != self._code.shape or code.keep != self._code.keep:
            raise ValueError(f"code of {self._label}: expected {self._code.format} of shape {self._code.shape}, keep "
                             f"{self._code.keep}, got {code.format} of shape {code.shape}, keep {code.keep}")
        self._code = code

    @property
    def shape(self) -> tuple[int, ...]:
        """tuple of int: length of each axis."""
        return self._data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """numpy.dtype: element type of the values."""
        return self._data.dtype

    @property
    def ndim(self) -> int:
        """int: number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """int: number of elements (as in NumPy)."""
        return self._data.size

    # Living as codes

    def live_as(self, format: Format | None, *, rounding: str = "nearest",
                scales: tuple[np.ndarray, ...] | None = None) -> int:
        """Encode the present values and drop the float array: from now on the parameter is its codes.

        Parameters
        ----------
        format : Format or None
            Of the codes, with one scale for the tensor; None turns codes back into a float32 array.
        rounding : {"nearest", "stochastic"}
            How optimizers round the updates that follow; this encoding is to nearest.
        scales : tuple of numpy.ndarray or None
            Scales that stay, whatever is written later; what is too large for them is clamped. None takes the scales
            that the values call for, anew at each :meth:`write`.

        Returns
        -------
        int
            How many elements were clamped.

        Raises
        ------
        TypeError
            If the parameter is not float32.
        ValueError
            For an unknown rounding, or NaN or infinity among the values.
        """
        if rounding not in ("nearest", "stochastic"):
            raise ValueError(f"rounding: expected 'nearest' or 'stochastic', got {rounding!r}")
        if self.dtype != np.float32:
            raise TypeError(f"live_as: codes stand for float32 numbers, but {self._label} is {self.dtype}")
        values = self.data
        if format is None:
            self._data, self._code, self._fixed_scales = values.copy(order="K"), None, False
            return 0
        self._code, clamped = format.encode(values, scales=scales), _count_clamped(format, values, scales)
        self._fixed_scales, self.rounding = scales is not None, rounding
        self._data = _stand_in(values.shape)
        return clamped

    def write(self, values: np.ndarray, *, stream: Any = None) -> int:
        """Encode new values: the one way for floats to become codes. A float parameter takes them as they are.

        Parameters
        ----------
        values : numpy.ndarray
            float32 of the parameter's shape.
        stream : Stream or None
            Rounds stochastically; None to nearest.

        Returns
        -------
        int
            How many elements were beyond fixed scales and clamped.

        Raises
        ------
        TypeError, ValueError
            For another dtype or shape, or NaN or infinity among the values of a parameter that lives as codes.
        """
        if values.shape != self.shape or values.dtype != self.dtype:
            raise ValueError(f"write: {self._label} takes {self.dtype} of shape {self.shape}, got {values.dtype} of "
                             f"shape {values.shape}")
        if self._code is None:
            self._data[...] = values
            return 0
        scales = self._code.scales if self._fixed_scales else None
        self._code = self._code.format.encode(values, stream=stream, scales=scales)
        return _count_clamped(self._code.format, values, scales)

    def __setstate__(self, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
        attributes, slots = state  # of copy.deepcopy and pickle, which write the stand-in out in full
        self.__dict__.update(attributes)
        for name, value in slots.items():
            setattr(self, name, value)
        if self._code is not None:
            self._data = _stand_in(self._code.shape)

    @property
    def _label(self) -> str:
        return f"parameter {self.name or '(unnamed)'}"


def _stand_in(shape: tuple[int, ...]) -> np.ndarray:
    """Shape and dtype without memory: four read-only bytes that stand for every element."""
    return np.broadcast_to(np.float32(0), shape)


def _count_clamped(format: Format, values: np.ndarray, scales: tuple[np.ndarray, ...] | None) -> int:
    """Elements larger than the largest value that the scales hold; encoding takes every such element there."""
    if scales is None or not values.size:
        return 0
    largest = format.encode(np.full_like(values, np.finfo(np.float32).max), scales=scales).decode()
    return int(np.count_nonzero(np.abs(values) > largest))
