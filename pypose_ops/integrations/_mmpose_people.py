"""MMPose's codecs of all people in an image."""

import random
from typing import Any, ClassVar

import numpy as np
import torch

from .. import codecs
from ._mmpose_codec import Array, Codec, as_numpy, as_tensor, like_visible


class AssociativeEmbedding(Codec):
    """:class:`pypose_ops.codecs.AssociativeEmbedding` in numpy."""

    wrapped = codecs.AssociativeEmbedding
    instance_mapping_table: ClassVar[dict[str, str]] = {}
    label_mapping_table: ClassVar[dict[str, str]] = {
        "keypoint_indices": "keypoint_indices",
        "keypoint_weights": "keypoint_weights",
    }
    field_mapping_table: ClassVar[dict[str, str]] = {"heatmaps": "heatmaps"}

    def encode(self, keypoints: Array, keypoints_visible: Array | None = None) -> dict[str, Any]:
        """``(N, K, 2)`` in input pixels to a dict of arrays."""
        visible = None if keypoints_visible is None else as_tensor(keypoints_visible)[None]
        heatmaps, indices, weights = self.codec.encode(as_tensor(keypoints)[None], visible)
        return {
            "heatmaps": heatmaps[0].numpy(),
            "keypoint_indices": indices[0].numpy(),
            "keypoint_weights": like_visible(weights[0], keypoints_visible),
        }

    def decode(self, *encoded: Any) -> Any:
        raise NotImplementedError("AssociativeEmbedding: use batch_decode")

    def batch_decode(self, *encoded: torch.Tensor) -> Any:
        """``(B, K, H, W)`` and tags ``(B, L K, H, W)`` to lists of keypoints, their scores, and people's scores."""
        return tuple([as_numpy(part) for part in parts] for parts in self.codec.decode(*encoded))


class SPR(Codec):
    """:class:`pypose_ops.codecs.SPR`: numpy in ``encode``, tensors in ``decode``, as MMPose's."""

    wrapped = codecs.SPR
    label_mapping_table: ClassVar[dict[str, str]] = {}
    field_mapping_table: ClassVar[dict[str, str]] = {
        name: name for name in ("heatmaps", "heatmap_weights", "displacements", "displacement_weights")
    }
    support_batch_decoding = False

    def encode(self, keypoints: Array, keypoints_visible: Array | None = None) -> dict[str, Any]:
        """``(N, K, 2)`` in input pixels to a dict of arrays."""
        visible = None if keypoints_visible is None else as_tensor(keypoints_visible)[None]
        targets = self.codec.encode(as_tensor(keypoints)[None], visible)
        return {name: target[0].numpy() for name, target in targets._asdict().items()}

    def decode(self, *encoded: Any) -> Any:
        """Maps ``(1, H, W)`` or ``(K + 1, H, W)`` and ``(2 K, H, W)`` to keypoints, and scores of roots and joints."""
        coords, joint_scores, scores, counts = self.codec.decode(*(maps[None] for maps in encoded))
        n = int(counts[0])
        return coords[0, :n], (scores[0, :n], None if joint_scores is None else joint_scores[0, :n])


class DecoupledHeatmap(Codec):
    """:class:`pypose_ops.codecs.DecoupledHeatmap` in numpy; samples among many people at random, as MMPose does."""

    wrapped = codecs.DecoupledHeatmap
    auxiliary_encode_keys: set[str] = {"bbox"}
    label_mapping_table: ClassVar[dict[str, str]] = {
        "keypoint_weights": "keypoint_weights",
        "instance_coords": "instance_coords",
    }
    field_mapping_table: ClassVar[dict[str, str]] = {"heatmaps": "heatmaps", "instance_heatmaps": "instance_heatmaps"}
    support_batch_decoding = False

    def encode(  # type: ignore[override]
        self, keypoints: Array, keypoints_visible: Array | None = None, bbox: Array | None = None
    ) -> dict[str, Any]:
        """``(N, K, 2)`` in input pixels and the corners of boxes ``(N, 4, 2)`` to a dict of arrays."""
        visible = None if keypoints_visible is None else as_tensor(keypoints_visible)[None]
        boxes = None
        if bbox is not None:
            corners = as_tensor(bbox).reshape(-1, 4, 2)
            sides = torch.stack((corners[:, 0] - corners[:, 2], corners[:, 0] - corners[:, 1]), 1)
            boxes = torch.linalg.vector_norm(sides, dim=-1)[None]
        targets = self.codec.encode(as_tensor(keypoints)[None], visible, boxes=boxes)
        maps, people, weights, roots, rooted, diagonals = (part[0].numpy() for part in targets)
        chosen: list[int] = []
        coords: list[tuple[float, float]] = []
        width, height = self.codec.heatmap_size
        for i in np.argsort(diagonals):
            if rooted[i] < 1:
                continue
            x, y = roots[i] + np.random.randint(-1, 2, (2,))
            at = (max(0, min(x, width - 1)), max(0, min(y, height - 1)))
            if at not in coords:
                coords.append(at)
                chosen.append(int(i))
        if len(chosen) > self.codec.max_instances:
            kept = random.sample(range(len(chosen)), self.codec.max_instances)
            coords, chosen = [coords[i] for i in kept], [chosen[i] for i in kept]
        return {
            "heatmaps": maps,
            "instance_heatmaps": people[chosen].reshape(-1, height, width),
            "keypoint_weights": weights[chosen] if chosen else np.empty((0,), np.float32),
            "instance_coords": np.array(coords, np.int32).reshape(-1, 2),
        }

    def decode(self, *encoded: Any) -> tuple[Array, Array]:
        """Maps ``(N, K, H, W)`` and scores of roots ``(N, 1)`` to ``(N, K, 2)`` and ``(N, K)``."""
        heatmaps, scores = encoded
        peaks = self.codec.decode(torch.as_tensor(np.ascontiguousarray(heatmaps)))
        coords, found = as_numpy(peaks.coords), as_numpy(peaks.scores)
        found = np.where(found > 0, found, heatmaps.max((-2, -1)))
        return np.where((found > 0)[..., None], coords, self._missing()), found * scores


class EDPoseLabel(Codec):
    """:class:`pypose_ops.codecs.EDPoseLabel` in numpy."""

    wrapped = codecs.EDPoseLabel
    auxiliary_encode_keys: set[str] = {"area", "bboxes", "img_shape"}
    label_mapping_table: ClassVar[dict[str, str]] = {}
    instance_mapping_table: ClassVar[dict[str, str]] = {
        "bbox": "bboxes", "keypoints": "keypoints", "keypoints_visible": "keypoints_visible", "area": "areas"
    }  # fmt: skip
    support_batch_decoding = False

    def encode(  # type: ignore[override]
        self, img_shape: Any, keypoints: Array, keypoints_visible: Array | None = None, area: Array | None = None,
        bboxes: Array | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Keypoints ``(N, K, 2)``, areas ``(N,)`` and boxes ``(N, 4)`` in units of the image."""
        width, height = img_shape
        if keypoints_visible is None:
            keypoints_visible = np.ones(keypoints.shape[:2], np.float32)
        of_areas = None if area is None else torch.as_tensor(area, dtype=torch.float64)
        boxes = None if bboxes is None else as_tensor(bboxes)
        labels = self.codec.encode(torch.as_tensor(keypoints, dtype=torch.float64), (height, width), of_areas, boxes)
        return {
            "keypoints": labels.keypoints.numpy(),
            "area": None if labels.areas is None else labels.areas.numpy(),
            "bbox": None if labels.boxes is None else labels.boxes.numpy(),
            "keypoints_visible": keypoints_visible,
        }

    def decode(self, *args: Any, **kwargs: Any) -> tuple[Array, Array, Array]:  # type: ignore[override]
        """``(input_shapes, pred_logits, pred_boxes, pred_keypoints)`` of one image to boxes, keypoints and scores."""
        names = ("input_shapes", "pred_logits", "pred_boxes", "pred_keypoints")
        given = dict(zip(names, args, strict=False)) | kwargs
        sizes, logits, boxes, keypoints = (torch.as_tensor(np.asarray(given[name]))[None] for name in names)
        found = self.codec.decode(logits, boxes, keypoints, sizes.reshape(1, 2))
        scores = found.scores[0, :, None].expand(-1, self.codec.num_keypoints)
        return as_numpy(found.boxes[0]), as_numpy(found.coords[0]), as_numpy(scores)


class YOLOXPoseAnnotationProcessor(Codec):
    """Enlarges boxes to contain all visible joints, and numbers categories from 0, for YOLOX-Pose."""

    expand_bbox: bool
    input_size: Any

    auxiliary_encode_keys: set[str] = {"category_id", "bbox"}
    label_mapping_table: ClassVar[dict[str, str]] = {
        "bbox": "bboxes",
        "bbox_labels": "labels",
        "keypoints": "keypoints",
        "keypoints_visible": "keypoints_visible",
        "area": "areas",
    }
    instance_mapping_table: ClassVar[dict[str, str]] = {
        "bbox": "bboxes", "bbox_score": "bbox_scores", "keypoints": "keypoints",
        "keypoints_visible": "keypoints_visible",
    }  # fmt: skip
    support_batch_decoding = False

    def __init__(self, expand_bbox: bool = False, input_size: Any = None) -> None:
        self.expand_bbox, self.input_size = expand_bbox, input_size

    def encode(  # type: ignore[override]
        self, keypoints: Array | None = None, keypoints_visible: Array | None = None, bbox: Array | None = None,
        category_id: list[int] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Boxes ``(N, 4)`` around keypoints ``(N, K, 2)``, and labels, which start at 0."""
        results: dict[str, Any] = {}
        if self.expand_bbox and bbox is not None and keypoints is not None and keypoints_visible is not None:
            visible = keypoints_visible[..., 0] if keypoints_visible.ndim == 3 else keypoints_visible
            boxes, points = (torch.as_tensor(v, dtype=torch.float64) for v in (bbox, keypoints))
            results["bbox"] = codecs.boxes_around_keypoints(boxes, points, torch.as_tensor(visible)).numpy()
        if category_id is not None:
            results["bbox_labels"] = np.array(category_id).astype(np.int8) - 1
        return results

    def decode(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Not implemented in MMPose either; returns None."""
