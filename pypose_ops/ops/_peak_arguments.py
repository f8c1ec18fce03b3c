"""Parses the arguments that the decoders share."""

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Sequence

import torch

from ._arguments import check_number, check_tensor

REFINES = (None, "quarter", "parabola", "dark", "dark_udp", "centroid")
COMPATS = (None, "hrnet", "mmpose", "mmpose0", "hf")
# The packages whose numbers each refinement can reproduce.
COMPATS_OF = {
    None: COMPATS,
    "quarter": (None, "hrnet", "mmpose", "mmpose0"),
    "dark": (None, "hrnet", "mmpose", "mmpose0"),
    "dark_udp": (None, "mmpose", "mmpose0", "hf"),
    "offset": (None, "mmpose"),
}
_KERNEL_SIZES = ((1, 3), (1.5, 7), (2, 11), (3, 17))  # sigma of the targets, blur: what MMPose's configurations use


def kernel_size_of(op: str, refine: str | None, kernel_size: int | str | None, sigma: float | None) -> int | None:
    """The blur (or window) in pixels; None: no blur."""
    if kernel_size != "auto":
        if sigma is not None:
            raise ValueError(f"{op}: give kernel_size or sigma, not both, got {kernel_size!r} and {sigma!r}")
        if isinstance(kernel_size, str):
            raise ValueError(f"{op}: kernel_size must be a number, None or 'auto', got {kernel_size!r}")
        if kernel_size is None and refine == "centroid":
            raise ValueError(f"{op}: kernel_size is the window of refine 'centroid', got None")
        return None if kernel_size is None else check_integer(op, "kernel_size", kernel_size)
    return kernel_size_for(op, refine, sigma)


def check_integer(op: str, name: str, value: int) -> int:
    """One integer (or a symbolic one)."""
    if isinstance(value, torch.SymInt):
        return value
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{op}: {name} must be an integer, got {value!r}") from None


def kernel_size_for(op: str, refine: str | None, sigma: float | None) -> int:
    """The blur for targets of that sigma; the window of ``"centroid"``."""
    if sigma is None:
        return 7 if refine == "centroid" else 11
    if refine == "centroid":
        raise ValueError(f"{op}: sigma is for blurs, got refine 'centroid'")
    sigma = check_number(op, "sigma", sigma)
    if not 0 < sigma < math.inf:
        raise ValueError(f"{op}: sigma must be positive and finite, got {sigma}")
    if sigma <= 1:
        return 3
    (s0, k0), (s1, k1) = next(
        (pair for pair in itertools.pairwise(_KERNEL_SIZES) if sigma <= pair[1][0]), _KERNEL_SIZES[-2:]
    )
    size = k0 + (k1 - k0) * (sigma - s0) / (s1 - s0)
    return min(63, 2 * math.floor(size / 2) + 1)


def simcc_kernels(
    kernel_size: int | Sequence[int] | str | None, sigma: float | Sequence[float]
) -> tuple[int, int] | tuple[None, None]:
    """The blurs of ``decode_simcc`` for x and y, in bins; None: no blur."""
    if kernel_size is None:
        return None, None
    if not isinstance(kernel_size, str):
        x, y = _pair("kernel_size", kernel_size)
        return check_integer("decode_simcc", "kernel_size", x), check_integer("decode_simcc", "kernel_size", y)
    if kernel_size != "auto":
        raise ValueError(f"decode_simcc: kernel_size must be one or two numbers, None or 'auto', got {kernel_size!r}")
    sizes = []
    for value in _pair("sigma", sigma):
        if not 0 < check_number("decode_simcc", "sigma", value) < 1e6:
            raise ValueError(f"decode_simcc: sigma must be positive and below 1e6, got {sigma}")
        size = int((20 * value - 7) // 3)
        sizes.append(max(1, size - (size % 2 == 0)))
    return sizes[0], sizes[1]


def _pair(name, value):
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"decode_simcc: {name} must be one number or two (x, y), got {value!r}")
    return tuple(pair)


def max_offset_of(op: str, max_offset: float | str | None, default: float | None) -> float | None:
    """The longest step; ``default`` for ``"auto"``, None for infinity."""
    if isinstance(max_offset, str):
        if max_offset != "auto":
            raise ValueError(f"{op}: max_offset must be a number, None or 'auto', got {max_offset!r}")
        return default
    max_offset = None if max_offset is None else check_number(op, "max_offset", max_offset)
    return None if max_offset == math.inf else max_offset


def refine_number(op: str, refine: str | None, more: str = "") -> int:
    """Returns the index of a refinement, which is its value in C++."""
    if refine not in REFINES:
        names = ", ".join(("None", *REFINES[1:])) + more
        raise ValueError(f"{op}: refine must be one of {names}, got {refine!r}")
    return REFINES.index(refine)


def check_compat(op: str, refine: str | None, compat: str | None) -> None:
    """Refuses a ``compat`` mode that does not have this refinement."""
    if compat is None or compat in COMPATS_OF.get(refine, (None,)):
        return
    if compat not in COMPATS:
        raise ValueError(f"{op}: compat must be None or one of {', '.join(COMPATS[1:])}, got {compat!r}")
    allowed = ", ".join(COMPATS_OF.get(refine, (None,))[1:]) or "none"
    raise ValueError(f"{op}: compat {compat!r} has no refine {refine!r}; compat modes of it: {allowed}")


def flip_permutation(
    op: str, flip_pairs: Iterable[tuple[int, int]] | None, heatmaps: torch.Tensor, channels: int = 1
) -> list[int]:
    """``flip_pairs``, checked, as the list of the joints that take each joint's place in a mirrored image."""
    if flip_pairs is None:
        raise ValueError(f"{op}: flip_pairs is required when flipped is given; it may be empty")
    if check_tensor(op, "heatmaps", heatmaps).dim() != 4:
        raise ValueError(f"{op}: heatmaps must be (B, K, H, W), got shape {tuple(heatmaps.shape)}")
    try:
        pairs = tuple(tuple(operator.index(joint) for joint in pair) for pair in flip_pairs)
    except TypeError:
        raise ValueError(f"{op}: flip_pairs must be pairs (left, right) of joint numbers, got {flip_pairs!r}") from None
    build = _permutation.__wrapped__ if torch.compiler.is_compiling() else _permutation
    return build(op, pairs, heatmaps.shape[1] // channels)


@functools.lru_cache(maxsize=64)
def _permutation(op, pairs, joints):
    permutation = list(range(joints))
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError(f"{op}: flip_pairs must be pairs (left, right) of joint numbers, got {pair}")
        for joint in pair:
            if not 0 <= joint < joints:
                raise ValueError(f"{op}: flip_pairs must be joints from 0 to {joints - 1}, got {joint} in {pair}")
        left, right = pair
        if left == right or permutation[left] != left or permutation[right] != right:
            raise ValueError(f"{op}: flip_pairs must have each joint once, got one again in {pair}")
        permutation[left], permutation[right] = right, left
    return permutation


def detached(tensor):
    # Without this check every call would create the views; the operator itself refuses other types.
    return tensor.detach() if getattr(tensor, "requires_grad", False) else tensor
