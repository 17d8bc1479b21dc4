"""The presets: recipes under the papers' names and settings. ``recipe.get("potq")`` and ``recipe.potq()`` lead here."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from minilp.formats import LNS, MLS, MX, Fixed, Minifloat, PoT
from minilp.recipe import Recipe
from minilp.roles import Role
from minilp.stored import lns_update
from minilp.transforms import PRC, WBC


def fp32() -> Recipe:
    """Plain float32 everywhere: the baseline that every format is held against."""
    return Recipe(name="fp32")


def potq(bits: int = 5) -> Recipe:
    """ALS-PoTQ (Liu et al. 2023, arXiv 2302.14458) under the assumptions that each field states.

    Parameters
    ----------
    bits : int
        Width of weights, activations and errors, 3 to 6. Five follows from the abstract's INT4 exponent adds.

    Returns
    -------
    Recipe
        Power-of-two weights, activations and errors; float32 master weights, optimizer and normalisation.
    """
    fmt = PoT(bits=bits)
    return Recipe(
        name="potq",
        weight=Role(fmt, before=(WBC(),)),  # WBC: in the abstract; its equation is our assumption
        act=Role(fmt, before=(PRC(),)),  # PRC: in the abstract; form, tensor and initial gamma are our assumptions
        error=Role(fmt),  # nearest rounding, quantised once for both backward contractions: our assumption
        wgrad=None,  # the weight gradient stays float32 (recalled: the claim covers the linear layers' products)
        first="same", last="same",  # "all linear layers" (journal abstract); no 6-bit exception
        attention="float",  # the journal abstract names convolutions and linear layers only
    )


def mls(exp: int = 2, man: int = 1, **fields: Any) -> Recipe:
    """MLS (Zhong et al. 2020, arXiv 2006.02804) under the assumptions that each field states.

    The abstracts' claims are for ``<2,1>`` (CIFAR-10) and ``<2,4>`` (ImageNet).

    Parameters
    ----------
    exp, man : int
        Exponent and mantissa bits of an element.
    **fields
        Further fields of :class:`minilp.formats.MLS`, such as ``group_man=0`` or ``top="keep"``.

    Returns
    -------
    Recipe
        MLS weights, activations and errors, also in evaluation; float32 first convolution, last linear layer, master
        weights, optimizer and normalisation. Downsampling convolutions are coded like the rest.
    """
    # nc groups, <8,1> group scales and gradual underflow: recalled. Saturating at the largest code: our choice, the
    # only one that fits the bits (the authors' simulator keeps 1.0: top="keep").
    fmt = MLS(exp=exp, man=man, **fields)
    return Recipe(
        name="mls",
        weight=Role(fmt),  # all three operands coded: in the abstract; nearest: the authors' code
        act=Role(fmt),  # nearest: the authors' code
        error=Role(fmt, rounding="stochastic"),  # the authors' code; coded once for both backward contractions: same
        wgrad=None,  # the weight gradient stays float32: the authors' code
        first=None, last=None,  # first convolution and last linear layer in float32: the authors' code
        attention="coded",  # the paper is about convolutions: our choice, so that every product of the model is coded
    )


def fp8() -> Recipe:
    """Eight-bit floats, E4M3 forward and E5M2 for errors (the split of Micikevicius et al. 2022, arXiv 2209.05433).

    Returns
    -------
    Recipe
        Everything rounds to nearest even. The split is the paper's; the power-of-two scale of each tensor, taken from
        its own maximum in every step, is ours.
    """
    return Recipe(name="fp8", weight=Role(Minifloat(4, 3)), act=Role(Minifloat(4, 3)), error=Role(Minifloat(5, 2)),
                  attention="float")


def int8(bits: int = 8) -> Recipe:
    """Symmetric fixed point with a power-of-two step per tensor: the plain baseline.

    Parameters
    ----------
    bits : int
        Width of weights, activations and errors, 2 to 16; above 8 the contractions are exact too, but run in NumPy.

    Returns
    -------
    Recipe
        Weights and activations round to nearest, errors stochastically: most of them are below one step. There is no
        option for a scale per output channel: the input gradient sums over that axis (see
        :class:`minilp.formats.Fixed`), so ``weight.keep=0`` evaluates, but its first backward pass is refused.
    """
    fmt = Fixed(bits=bits)
    return Recipe(name="int8", weight=Role(fmt), act=Role(fmt), error=Role(fmt, rounding="stochastic"),
                  attention="float")


def mxfp4(**fields: Any) -> Recipe:
    """MXFP4 (E2M1 in blocks of 32) for weights, activations and errors.

    Parameters
    ----------
    **fields
        Further fields of :class:`minilp.formats.MX`, such as ``scale_rule="ceil"``.

    Returns
    -------
    Recipe
        Errors round stochastically (the key step of Tseng et al. 2025, arXiv 2502.20586; their Hadamard transform is
        left out). MXFP4 forward too is our choice: they code the backward products only. Scales follow OCP's rule,
        under which a block's largest errors saturate, and a draw is unbiased only where nothing does: ResNet-20 trains
        far better with ``--set error.scale_rule=ceil`` (``lessons/plans/roles.json``).
    """
    return _mx("mxfp4", "e2m1", "stochastic", fields)


def mxfp6(element: str = "e3m2", **fields: Any) -> Recipe:
    """MXFP6 for weights, activations and errors (Rouhani et al. 2023, arXiv 2310.10537).

    Parameters
    ----------
    element : {"e3m2", "e2m3"}
        E3M2 for training is recalled from the paper, so our assumption.
    **fields
        Further fields of :class:`minilp.formats.MX`.

    Returns
    -------
    Recipe
        Everything rounds to nearest even.
    """
    return _mx("mxfp6", element, "nearest", fields)


def mxfp8(element: str = "e4m3", **fields: Any) -> Recipe:
    """MXFP8 for weights, activations and errors (after Mishra et al. 2025, arXiv 2506.08027).

    Parameters
    ----------
    element : {"e4m3", "e5m2"}
        E4M3 for errors too: a block's own scale makes E5M2's range unnecessary. Recalled from the paper, so our
        assumption; ``--set error.element=e5m2`` gives the split of FP8.
    **fields
        Further fields of :class:`minilp.formats.MX`. The paper's rounded-up scales are ``scale_rule="ceil"``.

    Returns
    -------
    Recipe
        Everything rounds to nearest even, scales by OCP's rule.
    """
    return _mx("mxfp8", element, "nearest", fields)


def mxint8(**fields: Any) -> Recipe:
    """MXINT8 for weights, activations and errors: fixed point in blocks of 32.

    Parameters
    ----------
    **fields
        Further fields of :class:`minilp.formats.MX`.

    Returns
    -------
    Recipe
        Weights and activations round to nearest, errors stochastically, as in :func:`int8`: our choice.
    """
    return _mx("mxint8", "int8", "stochastic", fields)


def _mx(name: str, element: str, rounding: str, fields: dict[str, Any]) -> Recipe:
    """One MX format in all three operands of every layer; everything else float32."""
    fmt = MX(element, **fields)
    return Recipe(name=name, weight=Role(fmt), act=Role(fmt), error=Role(fmt, rounding=rounding), attention="float")


def lns_madam(bits: int = 8, gamma: int = 8, update_bits: int = 16, **fields: Any) -> Recipe:
    """LNS-Madam (Zhao et al. 2022, arXiv 2106.13914) under the assumptions that each field states.

    Parameters
    ----------
    bits, gamma : int
        Width and levels an octave of weights, activations, errors and weight gradients.
    update_bits : int
        Width of the stored weights, over the same octaves: 16 down to 10 in the authors' figure.
    **fields
        Further fields of :class:`minilp.formats.LNS`, such as ``path="bins"``, for the contractions.

    Returns
    -------
    Recipe
        No float copy of any parameter: all of them live as integers of ``update_bits``, and Madam turns their
        exponents. The forward pass rounds those exponents to ``bits``, under the stored weights' maximum. Float32: the
        second moment, normalisation, the first convolution, the last linear layer, the optimizer's arithmetic.
    """
    fmt = LNS(bits=bits, gamma=gamma, **fields)
    return Recipe(
        name="lns-madam",
        weight=Role(fmt),  # 8 bits: in the abstract. gamma 8, nearest: recalled. One scale per tensor: our assumption
        act=Role(fmt),  # the same; the scale follows the tensor's maximum in every step: recalled
        error=Role(fmt),  # the same
        wgrad=Role(fmt),  # the same; on the gradient of the whole batch: our assumption
        # The widths are in the authors' figure, 16 as the headline and gamma_U = gamma * 2^(B_U - B) are recalled.
        # Nearest, and zero as a code of its own: our assumptions.
        update=lns_update(update_bits, fmt),
        first=None, last=None,  # our assumption (dimly recalled: the ends of the network stay full precision)
        attention="coded",  # the paper's energy figures count these products (derived from them)
        optimizer="madam",  # its rule and constants: the authors' released code
    )


def lns_madam_v1(**fields: Any) -> Recipe:
    """The first version of the same paper (June 2021): errors and weight gradients of 5 bits.

    Parameters
    ----------
    **fields
        As for :func:`lns_madam`, which has everything else.

    Returns
    -------
    Recipe
        Bases differ by role. A contraction of 8 with 5 bits runs in the path of its first operand.
    """
    recipe = lns_madam(**fields)
    assert recipe.weight is not None
    path = {"path": recipe.weight.format.path}  # type: ignore[attr-defined]
    backward = Role(LNS(bits=5, gamma=1, **path))  # 5 bits: in the abstract; gamma 1 (equal octaves): our assumption
    return dataclasses.replace(recipe, name="lns-madam-v1", error=backward, wgrad=backward)


PRESETS: dict[str, Callable[..., Recipe]] = {
    "fp32": fp32, "potq": potq, "mls": mls, "fp8": fp8, "int8": int8, "mxfp4": mxfp4, "mxfp6": mxfp6, "mxfp8": mxfp8,
    "mxint8": mxint8, "lns-madam": lns_madam, "lns-madam-v1": lns_madam_v1}
__all__ = ["PRESETS", *(preset.__name__ for preset in PRESETS.values())]
