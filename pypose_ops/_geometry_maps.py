"""Between the grids of a picture, a net's input and its heatmaps, and their mirror images."""

import torch

ALIGNS = ("index", "center", "corners")


def scale_coordinates(keypoints, from_size, to_size, *, align):
    """Carries coordinates from one pixel grid to another that shows the same picture.

    With ``n`` pixels on an axis of the first grid and ``m`` on that of the second, pixel centres at integers:

    - ``align="index"``: ``x * m / n``; pixel 0 on pixel 0 (MSRA, most of MMPose).
    - ``align="center"``: ``(x + 0.5) * m / n - 0.5``; the pictures' borders on each other (CPM, OpenPose, torchvision).
    - ``align="corners"``: ``x * (m - 1) / (n - 1)``; the outermost pixel centres on each other (UDP).

    Args:
        keypoints (Tensor): ``(..., 2)``, floating, ``(x, y)`` in pixels of the first grid.
        from_size, to_size (tuple[int, int]): ``(height, width)`` of the two grids.
        align (str): the rule; each is undone by swapping the sizes.

    Returns:
        Tensor: ``(..., 2)`` of the same dtype, in pixels of the second grid. Differentiable.

    Raises:
        ValueError: an unknown rule; a size that is not positive, or with ``"corners"`` below 2.

    Example:
        >>> scale_coordinates(torch.tensor([191.0, 255.0]), (256, 192), (64, 48), align="corners")
        tensor([47., 63.])
    """
    _check_points("scale_coordinates", keypoints)
    if align not in ALIGNS:
        raise ValueError(f"scale_coordinates: align must be one of {', '.join(ALIGNS)}, got {align!r}")
    smallest = 2 if align == "corners" else 1
    for name, size in (("from_size", from_size), ("to_size", to_size)):
        if len(size) != 2 or min(size) < smallest:
            raise ValueError(
                f"scale_coordinates: {name} must be (height, width) of at least {smallest} with align={align!r}, "
                f"got {tuple(size)}"
            )
    less = 1 if align == "corners" else 0
    half = 0.5 if align == "center" else 0.0
    # Numbers, not a tensor of them: that would have to be copied to the device.
    ratios = [(to_size[d] - less) / (from_size[d] - less) for d in (1, 0)]
    if ratios[0] == ratios[1]:
        return (keypoints + half) * ratios[0] - half if half else keypoints * ratios[0]
    return torch.stack([(v + half) * r - half for v, r in zip(keypoints.unbind(-1), ratios, strict=True)], -1)


def flip_keypoints(keypoints, width, flip_pairs, *, visible=None):
    """Mirrors keypoints left to right: ``x`` becomes ``width - 1 - x``, and left and right joints change places.

    Args:
        keypoints (Tensor): ``(..., K, 2)``, ``(x, y)`` in pixels.
        width (int): of the picture (or map) the coordinates are in.
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
    _check_points("flip_keypoints", keypoints)
    if keypoints.dim() < 2:
        raise ValueError(f"flip_keypoints: keypoints must be (..., K, 2), got shape {tuple(keypoints.shape)}")
    index = _permutation("flip_keypoints", flip_pairs, keypoints.shape[-2])
    x, y = keypoints[..., index, :].unbind(-1)
    flipped = torch.stack((width - 1 - x, y), -1)
    return flipped if visible is None else (flipped, visible[..., index])


def flip_heatmaps(heatmaps, flip_pairs, *, mode="heatmap", shift=False):
    """Mirrors the maps of a mirrored picture back: columns reversed, left and right joints exchanged.

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
    joints = joints[:, _permutation("flip_heatmaps", flip_pairs, joints.shape[1])].flip(-1)
    if mode == "offset":
        disc, x, y = joints.unbind(2)
        joints = torch.stack((disc, -x, y), 2)
    flipped = joints.flatten(1, 2)
    return torch.cat((flipped[..., :1], flipped[..., :-1]), -1) if shift else flipped


def _check_points(op, keypoints):
    if keypoints.dim() < 1 or keypoints.shape[-1] != 2 or not keypoints.is_floating_point():
        raise ValueError(
            f"{op}: keypoints must be a floating tensor (..., 2), got {keypoints.dtype} of shape "
            f"{tuple(keypoints.shape)}"
        )


def _permutation(op, pairs, joints):
    index = list(range(joints))
    for a, b in pairs:
        if not (0 <= a < joints and 0 <= b < joints) or a == b or index[a] != a or index[b] != b:
            raise ValueError(f"{op}: flip_pairs must name joints from 0 to {joints - 1} once each, got ({a}, {b})")
        index[a], index[b] = b, a
    return index
