"""Crops and SimCC decoding of all people at once for rtmlib's RTMPose, in numpy.

    import pypose_ops.integrations.rtmlib as fast

    fast.replace()  # RTMPose crops and decodes all people at once; .undo() restores its own functions

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
    """
    size = (input_size[1], input_size[0])
    corners = torch.as_tensor(np.asarray(boxes, np.float32)).reshape(-1, 4)
    center, scale = geometry.box_to_center_and_scale(corners, size)
    transforms = geometry.box_to_transform(center, scale, 0.0, size)
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    normalization = {} if mean is None or std is None else {"mean": [*map(float, mean)], "std": [*map(float, std)]}
    patches = crop_patches(pixels, transforms, size, **normalization)
    return patches.numpy(), center.numpy(), scale.numpy()


def simcc_maximum(simcc_x: Array, simcc_y: Array) -> tuple[Array, Array]:
    """The highest bins ``(N, K, 2)``, -1 where the score is not positive, and the means of both values ``(N, K)``."""
    bins = np.stack((simcc_x.argmax(-1), simcc_y.argmax(-1)), -1)
    tops = [np.take_along_axis(v, bins[..., i, None], -1)[..., 0] for i, v in enumerate((simcc_x, simcc_y))]
    scores = 0.5 * (tops[0] + tops[1])
    return np.where((scores > 0)[..., None], bins, -1).astype(np.float32), scores


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
    center, scale = center[:, None], scale[:, None]
    return bins / simcc_split_ratio / np.array(input_size) * scale + center - scale / 2, scores


def _call(self: Any, image: Array, bboxes: Any = ()) -> tuple[Array, Array]:
    """``RTMPose.__call__``: all crops at once; the network runs per person: its batch may be fixed to one."""
    if len(bboxes) == 0:
        bboxes = [[0, 0, image.shape[1], image.shape[0]]]
    patches, center, scale = preprocess(image, bboxes, self.model_input_size, self.mean, self.std)
    outputs = [self.inference(patch.transpose(1, 2, 0)) for patch in patches]  # which transposes back
    x, y = (np.concatenate(part) for part in zip(*outputs, strict=True))
    keypoints, scores = postprocess(x, y, center, scale, self.model_input_size)
    return self._peer_openpose(keypoints, scores) if self.to_openpose else (keypoints, scores)


def replace() -> Replacement:
    """Makes ``rtmlib.RTMPose`` use :func:`preprocess` and :func:`postprocess`."""
    module = require("rtmlib.tools.pose_estimation.rtmpose", "rtmlib", VERSIONS)
    done = Replacement()
    module.RTMPose._peer_openpose = staticmethod(module.convert_coco_to_openpose)
    done.put(module.RTMPose, "__call__", _call)
    return done
