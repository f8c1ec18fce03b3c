"""Mirroring of keypoints and heatmaps, of :mod:`pypose_ops.geometry`."""

from collections.abc import Iterable, Sequence
from typing import Literal, overload

import torch

from ._arguments import check_tensor


@overload
def flip_keypoints(
    keypoints: torch.Tensor, width: int, flip_pairs: Iterable[tuple[int, int]], *, visible: None = None
) -> torch.Tensor: ...


@overload
def flip_keypoints(
    keypoints: torch.Tensor, width: int, flip_pairs: Iterable[tuple[int, int]], *, visible: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]: ...


def flip_keypoints(
    keypoints: torch.Tensor,
    width: int,
    flip_pairs: Iterable[tuple[int, int]],
    *,
    visible: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Mirrors keypoints left to right: ``x`` becomes ``width - 1 - x``, and left and right joints change places.

    Args:
        keypoints (Tensor): ``(..., K, 2)``, ``(x, y)`` in pixels.
        width (int): of the image (or map) the coordinates are in.
        flip_pairs (sequence of pairs): joints that change places, for example ``skeletons.COCO.flip_pairs``.
        visible (Tensor, optional): ``(..., K)``; its joints change places too.

    Returns:
        Tensor, or with ``visible`` a pair of tensors. Differentiable.

    Raises:
        ValueError: keypoints are not ``(..., K, 2)``; a pair names a joint twice or one that is not there.

    Example:
        >>> flip_keypoints(torch.tensor([[1.0, 5.0], [4.0, 5.0]]), 10, [(0, 1)])
        tensor([[5., 5.],
                [8., 5.]])
    """
    check_points("flip_keypoints", keypoints)
    if keypoints.dim() < 2:
        raise ValueError(f"flip_keypoints: keypoints must be (..., K, 2), got shape {tuple(keypoints.shape)}")
    index = _permutation("flip_keypoints", flip_pairs, keypoints.shape[-2])
    x, y = reorder(keypoints, index, -2).unbind(-1)
    flipped = torch.stack((width - 1 - x, y), -1)
    return flipped if visible is None else (flipped, reorder(visible, index, -1))


def flip_heatmaps(
    heatmaps: torch.Tensor,
    flip_pairs: Iterable[tuple[int, int]],
    *,
    mode: Literal["heatmap", "offset"] = "heatmap",
    shift: bool = False,
) -> torch.Tensor:
    """Mirrors the maps of a mirrored image back: columns reversed, left and right joints exchanged.

    Args:
        heatmaps (Tensor): ``(B, C, H, W)``.
        flip_pairs (sequence of pairs): joints that change places.
        mode (str): ``"heatmap"``: one map per joint; ``"offset"``: the three maps per joint of :func:`offset_heatmaps`,
            whose x offset changes its sign. Part affinity fields have limbs instead of joints: they are drawn again
            from flipped keypoints.
        shift (bool): then move everything one pixel to the right, column 0 staying, for nets trained on maps with
            ``align="index"``: such a map is one pixel off in its mirror image.

    Returns:
        Tensor: of the same shape. Differentiable.

    Raises:
        ValueError: not four dimensions; channels that do not fit the mode; a wrong pair or mode.

    Example:
        >>> flip_heatmaps(torch.arange(4.0).reshape(1, 2, 1, 2), [(0, 1)])
        tensor([[[[3., 2.]],
        <BLANKLINE>
                 [[1., 0.]]]])
    """
    if heatmaps.dim() != 4:
        raise ValueError(f"flip_heatmaps: heatmaps must be (B, C, H, W), got shape {tuple(heatmaps.shape)}")
    channels = {"heatmap": 1, "offset": 3}.get(mode)
    if channels is None:
        raise ValueError(f"flip_heatmaps: mode must be one of heatmap, offset, got {mode!r}")
    if heatmaps.shape[1] % channels:
        raise ValueError(f"flip_heatmaps: offset maps come in threes, got {heatmaps.shape[1]} channels")
    joints = heatmaps.unflatten(1, (heatmaps.shape[1] // channels, channels))
    joints = reorder(joints, _permutation("flip_heatmaps", flip_pairs, joints.shape[1]), 1).flip(-1)
    if mode == "offset":
        disc, x, y = joints.unbind(2)
        joints = torch.stack((disc, -x, y), 2)
    flipped = joints.flatten(1, 2)
    return torch.cat((flipped[..., :1], flipped[..., :-1]), -1) if shift else flipped


def reorder(tensor: torch.Tensor, index: Sequence[int], dim: int) -> torch.Tensor:
    """``tensor.index_select(dim, index)`` without a tensor of indices, which would be copied to the device."""
    parts = tensor.unbind(dim)
    return torch.stack([parts[i] for i in index], dim)


def check_points(op: str, keypoints: torch.Tensor) -> None:
    check_tensor(op, "keypoints", keypoints)
    if keypoints.dim() < 1 or keypoints.shape[-1] != 2 or not keypoints.is_floating_point():
        raise ValueError(
            f"{op}: keypoints must be a floating tensor (..., 2), got {keypoints.dtype} of shape "
            f"{tuple(keypoints.shape)}"
        )


def _permutation(op: str, pairs: Iterable[tuple[int, int]], joints: int) -> list[int]:
    index = list(range(joints))
    for a, b in pairs:
        if not (0 <= a < joints and 0 <= b < joints) or a == b or index[a] != a or index[b] != b:
            raise ValueError(f"{op}: flip_pairs must name joints from 0 to {joints - 1} once each, got ({a}, {b})")
        index[a], index[b] = b, a
    return index
