"""The codecs of :mod:`pypose_ops.codecs` for MMPose 1.x: importing this module registers them.

    custom_imports = dict(imports=["pypose_ops.integrations.mmpose"])
    codec = dict(type="pypose_ops.MSRAHeatmap", input_size=(192, 256), heatmap_size=(48, 64), sigma=2)

Unmodified configs use them after :func:`replace`. Like MMPose's they take and return numpy arrays, and default to
``compat="mmpose"``: the values are MMPose's, so its later corrections still apply. ``batch_decode``, which MMPose's
heads call, takes the tensors of a batch on any device.

Not included: the codecs that lift 2-D poses to 3-D (ImagePoseLifting, VideoPoseLifting, MotionBERTLabel,
Hand3DHeatmap).
"""

import importlib.util
import inspect
import random
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch

from .. import codecs
from ._peer import Replacement, require

Array = np.ndarray
VERSIONS = ("1",)


class _InstanceError(ValueError, AssertionError):
    """MMPose raises an AssertionError for several instances."""


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _visible(array: Any) -> torch.Tensor | None:
    return None if array is None else _tensor(array)


def _numpy(tensor: torch.Tensor) -> Array:
    return tensor.detach().cpu().numpy()


class _Codec:
    """The codec interface of MMPose: arguments as attributes, numpy in and out, and the tables of names."""

    wrapped: ClassVar[Any]
    outputs: ClassVar[tuple[str, ...]] = ("heatmaps",)
    batch_dims: ClassVar[int] = 4
    auxiliary_encode_keys: ClassVar[set[str]] = set()
    instance_mapping_table: ClassVar[dict[str, str]] = {}
    field_mapping_table: ClassVar[dict[str, str]] = {}
    label_mapping_table: ClassVar[dict[str, str]] = {"keypoint_weights": "keypoint_weights"}
    support_batch_decoding: ClassVar[bool] = True
    input_size: Any
    heatmap_size: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        signature = inspect.signature(self.wrapped)
        if "compat" in signature.parameters:
            kwargs.setdefault("compat", "mmpose")
        try:
            self.codec: Any = self.wrapped(*args, **kwargs)
        except ValueError as error:
            raise self._refusal(error) from None
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            setattr(self, name, value)
        if "heatmap_size" in bound.arguments:
            self.scale_factor: Array = self._scale_factor()

    def _refusal(self, error: ValueError) -> ValueError:
        """Adds MMPose's wording to the error."""
        words = {
            "smoothing_type": "got invalid `smoothing_type` value",
            "heatmap_type": "got invalid `heatmap_type` value",
            "label_smooth_weight": "`label_smooth_weight` should be in [0, 1] and is only used for `standard` mode.",
        }
        said = [text for name, text in words.items() if f": {name} " in str(error)]
        kind = _InstanceError if "sigma must be two" in str(error) else ValueError
        return kind(" (MMPose: ".join([str(error), *said]) + ")" * len(said))

    def _scale_factor(self) -> Array:
        less = 1 if getattr(self, "use_udp", "UDP" in type(self).__name__) else 0
        return ((np.array(self.input_size) - less) / (np.array(self.heatmap_size) - less)).astype(np.float32)

    def _missing(self) -> Array:
        """Where MMPose places joints of maps without a peak: pixel -1, in input pixels."""
        return -getattr(self, "scale_factor", np.ones(2, np.float32))

    def _one(self, keypoints: Array) -> None:
        if keypoints.shape[0] != 1:
            raise _InstanceError(
                f"{type(self).__name__}: keypoints must be of one instance, got {keypoints.shape[0]} (MMPose: only "
                "support single-instance keypoint encoding)"
            )

    def encode(self, keypoints: Array, keypoints_visible: Array | None = None) -> dict[str, Any]:
        """``(1, K, 2)`` in input pixels to a dict of arrays, with MMPose's names."""
        self._one(keypoints)
        targets, weights = self.codec.encode(_tensor(keypoints), _visible(keypoints_visible))
        targets = targets if isinstance(targets, tuple) else (targets,)
        arrays = {name: target.numpy() for name, target in zip(self.outputs, targets, strict=True)}
        arrays = {name: array[0] if name == "heatmaps" else array for name, array in arrays.items()}
        return arrays | {"keypoint_weights": weights.numpy()}

    def _decoded(self, batch: list[torch.Tensor]) -> tuple[Array, ...]:
        coords, scores, *more = (_numpy(part) for part in self.codec.decode(*batch))
        return np.where((scores > 0)[..., None], coords, self._missing()).astype(coords.dtype), scores, *more

    def decode(self, *encoded: Any) -> tuple[Array, Any]:
        """Arrays of one image, as returned by ``encode`` or a network, to ``(1, K, 2)`` and scores ``(1, K)``."""
        batch = [torch.as_tensor(np.ascontiguousarray(array)) for array in encoded]
        batch = [tensor[None] if tensor.dim() == self.batch_dims - 1 else tensor for tensor in batch]
        coords, *scores = self._decoded(batch)
        return coords, scores[0] if len(scores) == 1 else tuple(scores)

    def batch_decode(self, *encoded: torch.Tensor) -> tuple[list[Array], Any]:
        """Tensors of a batch, on any device, to two lists with an array per image."""
        coords, *scores = (list(part[:, None]) for part in self._decoded(list(encoded)))
        return coords, scores[0] if len(scores) == 1 else tuple(scores)


class MSRAHeatmap(_Codec):
    """:class:`pypose_ops.codecs.MSRAHeatmap` in numpy."""

    wrapped: ClassVar[Any] = codecs.MSRAHeatmap
    field_mapping_table: ClassVar[dict[str, str]] = {"heatmaps": "heatmaps"}


class UDPHeatmap(MSRAHeatmap):
    """:class:`pypose_ops.codecs.UDPHeatmap` in numpy."""

    wrapped = codecs.UDPHeatmap

    def _missing(self) -> Array:
        less_one = np.array(self.heatmap_size) - 1
        return (-np.array(self.input_size) / less_one).astype(np.float32)


class MegviiHeatmap(MSRAHeatmap):
    """:class:`pypose_ops.codecs.MegviiHeatmap` in numpy."""

    wrapped = codecs.MegviiHeatmap


class RegressionLabel(_Codec):
    """:class:`pypose_ops.codecs.RegressionLabel` in numpy; for several instances, and with RLE's deviations."""

    wrapped: ClassVar[Any] = codecs.RegressionLabel
    outputs: ClassVar[tuple[str, ...]] = ("keypoint_labels",)
    batch_dims = 3
    label_mapping_table: ClassVar[dict[str, str]] = {
        "keypoint_labels": "keypoint_labels",
        "keypoint_weights": "keypoint_weights",
    }

    def encode(self, keypoints: Array, keypoints_visible: Array | None = None) -> dict[str, Any]:
        """``(N, K, 2)`` in input pixels to a dict of arrays; in numpy, which is faster than a single torch call."""
        size = np.array(self.input_size, np.float32)
        known = ((keypoints >= 0) & (keypoints <= size - 1)).all(-1)
        if keypoints_visible is not None:
            known &= keypoints_visible > 0.5
        return {
            "keypoint_labels": (keypoints / size).astype(np.float32),
            "keypoint_weights": known.astype(np.float32),
        }

    def _decoded(self, batch: list[torch.Tensor]) -> tuple[Array, ...]:
        coords, scores = self.codec.decode(*batch)
        return _numpy(coords), _numpy(scores)

    def batch_decode(self, *encoded: torch.Tensor) -> tuple[list[Array], Any]:
        """``(B, N, K, 2)``, or with four numbers per joint, to two lists with an array per image."""
        coords, scores = self._decoded([labels if labels.dim() == 4 else labels[:, None] for labels in encoded])
        return list(coords), list(scores)


class IntegralRegressionLabel(RegressionLabel):
    """:class:`pypose_ops.codecs.IntegralRegressionLabel` in numpy."""

    heatmap_codec: Any
    keypoint_codec: Any

    wrapped = codecs.IntegralRegressionLabel
    outputs: ClassVar[tuple[str, ...]] = ("keypoint_labels", "heatmaps")
    field_mapping_table: ClassVar[dict[str, str]] = {"heatmaps": "heatmaps"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heatmap_codec, self.keypoint_codec = self.codec.heatmap_codec, self.codec.keypoint_codec

    def encode(self, keypoints: Array, keypoints_visible: Array | None = None) -> dict[str, Any]:
        """``(N, K, 2)`` in input pixels to a dict of arrays."""
        return _Codec.encode(self, keypoints, keypoints_visible)


class SimCCLabel(_Codec):
    """:class:`pypose_ops.codecs.SimCCLabel` in numpy."""

    wrapped = codecs.SimCCLabel
    outputs: ClassVar[tuple[str, ...]] = ("keypoint_x_labels", "keypoint_y_labels")
    batch_dims = 3
    label_mapping_table: ClassVar[dict[str, str]] = {
        "keypoint_x_labels": "keypoint_x_labels",
        "keypoint_y_labels": "keypoint_y_labels",
        "keypoint_weights": "keypoint_weights",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sigma: Array = np.array(self.codec.sigma)

    def encode(self, keypoints: Array, keypoints_visible: Array | None = None) -> dict[str, Any]:
        """``(N, K, 2)`` in input pixels to a dict of arrays."""
        (x, y), weights = self.codec.encode(_tensor(keypoints), _visible(keypoints_visible))
        return {
            "keypoint_x_labels": x.numpy(),
            "keypoint_y_labels": y.numpy(),
            "keypoint_weights": weights.numpy(),
        }

    def _missing(self) -> Array:
        return np.full(2, -1 / self.codec.simcc_split_ratio, np.float32)


class SimCC3DLabel(_Codec):
    """:class:`pypose_ops.codecs.SimCC3DLabel` in numpy, for the project rtmpose3d."""

    wrapped = codecs.SimCC3DLabel
    auxiliary_encode_keys: set[str] = {"keypoints_3d"}
    label_mapping_table: ClassVar[dict[str, str]] = {
        name: name
        for name in (
            *(f"keypoint_{axis}_labels" for axis in "xyz"), "keypoint_weights", "weight_z", "with_z_label"
        )
    }  # fmt: skip
    instance_mapping_table: ClassVar[dict[str, str]] = {
        "bbox": "bboxes",
        "bbox_score": "bbox_scores",
        "bbox_scale": "bbox_scales",
        "lifting_target": "lifting_target",
        "lifting_target_visible": "lifting_target_visible",
        "camera_param": "camera_params",
        "root_z": "root_z",
    }
    support_batch_decoding = False

    def encode(  # type: ignore[override]
        self, keypoints: Array, keypoints_3d: Array | None = None, keypoints_visible: Array | None = None
    ) -> dict[str, Any]:
        """``(N, K, 2)`` in input pixels, and ``(N, K, 3)`` in space, to a dict of arrays."""
        if keypoints.ndim == 0:  # an image without people
            empty = np.zeros(1, np.float32)
            labels = {f"keypoint_{axis}_labels": empty for axis in "xyz"}
            more = {"lifting_target": [None], "root_z": [self.codec.root_z], "keypoint_weights": np.ones(1)}
            return labels | more | {"weight_z": np.zeros(1), "with_z_label": [False]}
        depths = None if keypoints_3d is None else _tensor(keypoints_3d[..., 2])
        x, y, z, weights, root_z = self.codec.encode(_tensor(keypoints), depths, _visible(keypoints_visible))
        known = keypoints_3d is not None
        return {
            "keypoint_x_labels": x.numpy(),
            "keypoint_y_labels": y.numpy(),
            "keypoint_z_labels": z.numpy(),
            "lifting_target": keypoints_3d.copy() if keypoints_3d is not None else [None],
            "root_z": root_z.numpy() if known else [self.codec.root_z],
            "keypoint_weights": weights.numpy(),
            "weight_z": weights.numpy() if known else np.zeros_like(weights.numpy()),
            "with_z_label": [known],
        }

    def decode(self, *encoded: Any) -> tuple[Array, Array, Array]:  # type: ignore[override]
        """Vectors of x, y and z to keypoints ``(N, K, 3)``, the same in pixels, and scores ``(N, K)``."""
        batch = [torch.as_tensor(np.ascontiguousarray(array)) for array in encoded]
        coords, scores, bins = self.codec.decode(*(v[None] if v.dim() == 2 else v for v in batch))
        return _numpy(coords), _numpy(bins), _numpy(scores)


class AssociativeEmbedding(_Codec):
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
        visible = None if keypoints_visible is None else _tensor(keypoints_visible)[None]
        heatmaps, indices, weights = self.codec.encode(_tensor(keypoints)[None], visible)
        return {
            "heatmaps": heatmaps[0].numpy(),
            "keypoint_indices": indices[0].numpy(),
            "keypoint_weights": weights[0].numpy(),
        }

    def decode(self, *encoded: Any) -> Any:
        raise NotImplementedError("AssociativeEmbedding: use batch_decode")

    def batch_decode(self, *encoded: torch.Tensor) -> Any:
        """``(B, K, H, W)`` and tags ``(B, L K, H, W)`` to lists of keypoints, their scores, and people's scores."""
        return tuple([_numpy(part) for part in parts] for parts in self.codec.decode(*encoded))


class SPR(_Codec):
    """:class:`pypose_ops.codecs.SPR`: numpy in ``encode``, tensors in ``decode``, as MMPose's."""

    wrapped = codecs.SPR
    label_mapping_table: ClassVar[dict[str, str]] = {}
    field_mapping_table: ClassVar[dict[str, str]] = {
        name: name for name in ("heatmaps", "heatmap_weights", "displacements", "displacement_weights")
    }
    support_batch_decoding = False

    def encode(self, keypoints: Array, keypoints_visible: Array | None = None) -> dict[str, Any]:
        """``(N, K, 2)`` in input pixels to a dict of arrays."""
        visible = None if keypoints_visible is None else _tensor(keypoints_visible)[None]
        targets = self.codec.encode(_tensor(keypoints)[None], visible)
        return {name: target[0].numpy() for name, target in targets._asdict().items()}

    def decode(self, *encoded: Any) -> Any:
        """Maps ``(1, H, W)`` or ``(K + 1, H, W)`` and ``(2 K, H, W)`` to keypoints, and scores of roots and joints."""
        coords, joint_scores, scores, counts = self.codec.decode(*(maps[None] for maps in encoded))
        n = int(counts[0])
        return coords[0, :n], (scores[0, :n], None if joint_scores is None else joint_scores[0, :n])


class DecoupledHeatmap(_Codec):
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
        visible = None if keypoints_visible is None else _tensor(keypoints_visible)[None]
        boxes = None
        if bbox is not None:
            corners = _tensor(bbox).reshape(-1, 4, 2)
            sides = torch.stack((corners[:, 0] - corners[:, 2], corners[:, 0] - corners[:, 1]), 1)
            boxes = torch.linalg.vector_norm(sides, dim=-1)[None]
        targets = self.codec.encode(_tensor(keypoints)[None], visible, boxes=boxes)
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
        coords, found = _numpy(peaks.coords), _numpy(peaks.scores)
        return np.where((found > 0)[..., None], coords, self._missing()), found * scores


class EDPoseLabel(_Codec):
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
        boxes = None if bboxes is None else _tensor(bboxes)
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
        return _numpy(found.boxes[0]), _numpy(found.coords[0]), _numpy(scores)


class YOLOXPoseAnnotationProcessor(_Codec):
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


CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        MSRAHeatmap, UDPHeatmap, MegviiHeatmap, RegressionLabel, IntegralRegressionLabel, SimCCLabel, SimCC3DLabel,
        AssociativeEmbedding, SPR, DecoupledHeatmap, EDPoseLabel, YOLOXPoseAnnotationProcessor,
    )
}  # fmt: skip


def register() -> Any:
    """Registers the codecs in MMPose's ``KEYPOINT_CODECS`` as ``pypose_ops.NAME``; returns their registry."""
    peer = require("mmpose.registry", "mmpose", VERSIONS)
    registry = peer.KEYPOINT_CODECS.children.get("pypose_ops")
    if registry is None:
        from mmengine.registry import Registry

        registry = Registry("keypoint codec", parent=peer.KEYPOINT_CODECS, scope="pypose_ops")
        for cls in CLASSES.values():
            registry.register_module(module=cls)
    return registry


def replace() -> Replacement:
    """Replaces MMPose's codecs of the same names, for unmodified configs; see ``Replacement``."""
    peer = require("mmpose.codecs", "mmpose", VERSIONS)
    own = require("mmpose.registry", "mmpose", VERSIONS).KEYPOINT_CODECS
    base: Callable[[type], type] = require("mmpose.codecs.base", "mmpose", VERSIONS).BaseKeypointCodec.register
    done = Replacement()
    for name, cls in CLASSES.items():
        base(cls)
        if hasattr(peer, name):
            done.everywhere("mmpose", {getattr(peer, name): cls})
        if name in own.module_dict:
            done.put(own._module_dict, name, cls)
    return done


CODECS = register() if importlib.util.find_spec("mmpose") else None
