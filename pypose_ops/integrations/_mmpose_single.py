"""MMPose's codecs of one person per crop."""

from typing import Any, ClassVar

import numpy as np
import torch

from .. import codecs
from ._mmpose_codec import Array, Codec, as_numpy, as_tensor, as_visible, like_visible


class MSRAHeatmap(Codec):
    """:class:`pypose_ops.codecs.MSRAHeatmap` in numpy."""

    wrapped: ClassVar[Any] = codecs.MSRAHeatmap
    field_mapping_table: ClassVar[dict[str, str]] = {"heatmaps": "heatmaps"}


class UDPHeatmap(MSRAHeatmap):
    """:class:`pypose_ops.codecs.UDPHeatmap` in numpy."""

    wrapped = codecs.UDPHeatmap

    def _missing(self) -> Array:
        less_one = np.array(self.heatmap_size) - 1
        return (-np.array(self.input_size) / less_one).astype(np.float32)

    def _maxima(self, *batch: torch.Tensor) -> torch.Tensor:
        if self.codec.heatmap_type == "gaussian":
            return super()._maxima(*batch)
        lift = 1 - batch[0].detach().amin()  # the scores of combined maps are blurred, which commutes with adding
        return self.codec.decode(batch[0].detach() + lift).scores - lift


class MegviiHeatmap(MSRAHeatmap):
    """:class:`pypose_ops.codecs.MegviiHeatmap` in numpy."""

    wrapped = codecs.MegviiHeatmap

    def _maxima(self, *batch: torch.Tensor) -> torch.Tensor:
        top = super()._maxima(*batch)
        return torch.where(top < 0, top / 255 + 0.5, 0.0)


class RegressionLabel(Codec):
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
        return as_numpy(coords), as_numpy(scores)

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
        encoded = Codec.encode(self, keypoints, keypoints_visible)
        return encoded | {"keypoint_weights": encoded["keypoint_weights"].astype(np.float32, copy=False)}


class SimCCLabel(Codec):
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
        (x, y), weights = self.codec.encode(as_tensor(keypoints), as_visible(keypoints_visible))
        return {
            "keypoint_x_labels": x.numpy(),
            "keypoint_y_labels": y.numpy(),
            "keypoint_weights": like_visible(weights, keypoints_visible),
        }

    def _maxima(self, *batch: torch.Tensor) -> torch.Tensor:
        return torch.minimum(*(vectors.amax(-1) for vectors in batch))

    def _missing(self) -> Array:
        return np.full(2, -1 / self.codec.simcc_split_ratio, np.float32)


class SimCC3DLabel(Codec):
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
        depths = None if keypoints_3d is None else as_tensor(keypoints_3d[..., 2])
        x, y, z, weights, root_z = self.codec.encode(as_tensor(keypoints), depths, as_visible(keypoints_visible))
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
        return as_numpy(coords), as_numpy(bins), as_numpy(scores)
