"""Crops and SimCC decoding of all people at once for rtmlib's RTMPose and RTMPose3d, and its box NMS, in numpy.

    import pypose_ops.integrations.rtmlib as fast

    fast.replace()  # RTMPose and RTMPose3d crop and decode all people at once; .undo() restores their own functions

The functions work without rtmlib.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .. import geometry
from ..ops.crop_patches import crop_patches
from ._peer import Replacement, require

VERSIONS = ("0.0",)
Array = np.ndarray


def preprocess(
    image: Array,
    boxes: Array | Sequence[Sequence[float]],
    input_size: tuple[int, int] = (192, 256),
    mean: Sequence[float] | None = (123.675, 116.28, 103.53),
    std: Sequence[float] | None = (58.395, 57.12, 57.375),
) -> tuple[Array, Array, Array]:
    """Crops of one image ``(H, W, 3)`` around boxes ``(N, 4)``, two corners.

    Returns:
        The normalised crops ``(N, 3, h, w)``, float32, for ``input_size (w, h)``; the centres and the scales of the
        boxes, ``(N, 2)``, which :func:`postprocess` takes.

    Raises:
        ValueError: an image or boxes of another shape.
    """
    size = (input_size[1], input_size[0])
    image, corners = np.asarray(image), np.asarray(boxes, np.float32)
    if image.ndim != 3:
        raise ValueError(f"preprocess: image must be (H, W, 3), got shape {image.shape}")
    if corners.size and (corners.ndim > 2 or corners.shape[-1] != 4):
        raise ValueError(f"preprocess: boxes must be (N, 4), two corners, got shape {corners.shape}")
    center, scale = geometry.box_to_center_and_scale(torch.from_numpy(corners.reshape(-1, 4)), size)
    transforms = geometry.box_to_transform(center, scale, 0.0, size)
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    normalization: dict[str, Any] = (
        {} if mean is None or std is None else {"mean": [*map(float, mean)], "std": [*map(float, std)]}
    )
    patches = crop_patches(pixels, transforms, size, dtype=torch.float32, **normalization)
    return patches.numpy(), center.numpy(), scale.numpy()


def _highest_bins(*vectors: Array) -> tuple[Array, list[Array]]:
    """The highest bins of every axis ``(N, K, axes)``, and the values there, ``(N, K)`` each."""
    shape = vectors[0].shape[:-1]
    bins, tops = np.empty((*shape, len(vectors)), np.float32), []
    for axis, vector in enumerate(vectors):
        rows = vector.reshape(-1, vector.shape[-1])
        highest = rows.argmax(-1)
        bins[..., axis] = highest.reshape(shape)
        tops.append(rows[np.arange(len(rows)), highest].reshape(shape))
    return bins, tops


def _or_missing(bins: Array, scores: Array) -> Array:
    bins[~(scores > 0)] = -1
    return bins


def _in_image(bins: Array, bin_size: Array, center: Array, scale: Array) -> Array:
    """Bins of x and y ``(N, K, 2)`` in image pixels; an axis at a time, as loops over pairs are slow."""
    center, scale = np.reshape(center, (-1, 2)), np.reshape(scale, (-1, 2))  # rtmlib's of one person are (2,)
    factor, offset = scale * bin_size, center - scale / 2
    people = np.broadcast_shapes(bins.shape[:1], factor.shape[:1])
    at = np.empty((*people, *bins.shape[1:]), np.result_type(bins, factor, offset))
    for axis in (0, 1):
        at[..., axis] = bins[..., axis] * factor[:, None, axis] + offset[:, None, axis]
    return at


def simcc_maximum(simcc_x: Array, simcc_y: Array) -> tuple[Array, Array]:
    """The highest bins ``(N, K, 2)``, -1 where the score is not positive, and the means of both values ``(N, K)``."""
    bins, (x, y) = _highest_bins(simcc_x, simcc_y)
    scores = 0.5 * (x + y)
    return _or_missing(bins, scores), scores


def postprocess(
    simcc_x: Array,
    simcc_y: Array,
    center: Array,
    scale: Array,
    input_size: tuple[int, int] = (192, 256),
    simcc_split_ratio: float = 2.0,
) -> tuple[Array, Array]:
    """SimCC's vectors of all people to keypoints ``(N, K, 2)`` in image pixels and scores ``(N, K)``."""
    bins, scores = simcc_maximum(simcc_x, simcc_y)
    return _in_image(bins, 1 / (np.array(input_size) * simcc_split_ratio), center, scale), scores


def simcc_maximum_3d(simcc_x: Array, simcc_y: Array, simcc_z: Array) -> tuple[Array, Array]:
    """The highest bins ``(N, K, 3)``, -1 without a positive score, and scores ``(N, K)``: the lower of x and y."""
    bins, (x, y, _) = _highest_bins(simcc_x, simcc_y, simcc_z)
    scores = np.minimum(x, y)
    return _or_missing(bins, scores), scores


def postprocess_3d(
    simcc_x: Array,
    simcc_y: Array,
    simcc_z: Array,
    center: Array,
    scale: Array,
    input_size: tuple[int, int] = (288, 384),
    simcc_split_ratio: float = 2.0,
    z_range: float = 2.1744869,
) -> tuple[Array, Array, Array, Array]:
    """SimCC's vectors of all people along three axes, as RTMPose3d decodes them.

    Args:
        simcc_x, simcc_y, simcc_z: ``(N, K, W)``, ``(N, K, H)`` and ``(N, K, D)``.
        center, scale: ``(N, 2)``, of :func:`preprocess`.
        input_size: ``(w, h)`` of the net's input.
        simcc_split_ratio: bins per input pixel.
        z_range: the depth at the last bin, in metres; the middle one is the root's.

    Returns:
        Keypoints ``(N, K, 3)``, x and y in input pixels and z in metres; scores ``(N, K)``; all three coordinates in
        input pixels ``(N, K, 3)``; and x and y in image pixels ``(N, K, 2)``.
    """
    bins, scores = simcc_maximum_3d(simcc_x, simcc_y, simcc_z)
    in_crop = bins / simcc_split_ratio
    keypoints = in_crop.copy()
    keypoints[..., 2] = (in_crop[..., 2] / (input_size[1] / 2) - 1) * z_range
    return keypoints, scores, in_crop, _in_image(in_crop[..., :2], 1 / np.array(input_size), center, scale)


def nms(boxes: Array, scores: Array, nms_thr: float) -> list[int]:
    """Indices of the boxes ``(N, 4)`` that non-maximum suppression keeps, the best first.

    Two corners, whose pixels both belong to the box: sides are ``x2 - x1 + 1``.
    """
    order = scores.argsort()[::-1]
    x1, y1, x2, y2 = np.ascontiguousarray(boxes[order].T)
    x2, y2 = x2 + 1, y2 + 1
    areas = (x2 - x1) * (y2 - y1)
    alive = np.ones(len(order), bool)
    keep = []
    for i in range(len(order)):
        if alive[i]:
            keep.append(int(order[i]))
            rest = slice(i + 1, None)
            width = np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest])
            height = np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest])
            both = np.maximum(width, 0) * np.maximum(height, 0)
            alive[rest] &= both <= nms_thr * (areas[i] + areas[rest] - both)
    return keep


def multiclass_nms(boxes: Array, scores: Array, nms_thr: float, score_thr: float) -> tuple[Array | None, Array | None]:
    """:func:`nms` of every class, boxes ``(N, 4)`` and scores ``(N, classes)``.

    Returns:
        ``(M, 6)``, corners, score and class, and their indices ``(M,)`` among the boxes; None and None for no box above
        ``score_thr``.
    """
    rows, indices = [], []
    for number in range(scores.shape[1]):
        above = (scores[:, number] > score_thr).nonzero()[0]
        kept = above[nms(boxes[above], scores[above, number], nms_thr)] if len(above) else above
        rows.append(np.concatenate([boxes[kept], scores[kept, number, None], np.full((len(kept), 1), number)], 1))
        indices.append(kept)
    if not sum(map(len, indices)):
        return None, None
    return np.concatenate(rows), np.concatenate(indices)


def _infer(self: Any, image: Array, bboxes: Any) -> tuple[list[Array], Array, Array]:
    """The networks' outputs for all crops; it runs per person: its batch may be fixed to one."""
    if len(bboxes) == 0:
        bboxes = [[0, 0, image.shape[1], image.shape[0]]]
    patches, center, scale = preprocess(image, bboxes, self.model_input_size, self.mean, self.std)
    outputs = [self.inference(patch.transpose(1, 2, 0)) for patch in patches]  # which transposes back
    return [np.concatenate(part) for part in zip(*outputs, strict=True)], center, scale


def _call(self: Any, image: Array, bboxes: Any = ()) -> tuple[Array, Array]:
    """``RTMPose.__call__``."""
    (x, y), center, scale = _infer(self, image, bboxes)
    keypoints, scores = postprocess(x, y, center, scale, self.model_input_size)
    return self._peer_openpose(keypoints, scores) if self.to_openpose else (keypoints, scores)


def _call_3d(self: Any, image: Array, bboxes: Any = ()) -> tuple[Array, Array, Array, Array]:
    """``RTMPose3d.__call__``."""
    (x, y, z), center, scale = _infer(self, image, bboxes)
    return postprocess_3d(x, y, z, center, scale, self.model_input_size, z_range=self.z_range)


def replace() -> Replacement:
    """Makes rtmlib's ``RTMPose`` and ``RTMPose3d`` crop and decode with these functions; detectors use the NMS."""
    module = require("rtmlib.tools.pose_estimation.rtmpose", "rtmlib", VERSIONS)
    module_3d = require("rtmlib.tools.pose_estimation.rtmpose3d", "rtmlib", VERSIONS)
    boxes = require("rtmlib.tools.object_detection.post_processings", "rtmlib", VERSIONS)
    done = Replacement()
    done.everywhere("rtmlib", {boxes.nms: nms, boxes.multiclass_nms: multiclass_nms})
    done.put(module_3d.RTMPose3d, "__call__", _call_3d)
    module.RTMPose._peer_openpose = staticmethod(module.convert_coco_to_openpose)
    done.put(module.RTMPose, "__call__", _call)
    return done
