"""The codec interface of MMPose around a codec of this package."""

import inspect
from typing import Any, ClassVar

import numpy as np
import torch

Array = np.ndarray


class InstanceError(ValueError, AssertionError):
    """MMPose raises an AssertionError for several instances."""


def as_tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def as_visible(array: Any) -> torch.Tensor | None:
    return None if array is None else as_tensor(array)


def like_visible(weights: torch.Tensor, visible: Array | None) -> Array:
    """MMPose's weights are a copy of the visibilities."""
    return weights.numpy() if visible is None else weights.numpy().astype(visible.dtype, copy=False)


def as_numpy(tensor: torch.Tensor) -> Array:
    return tensor.detach().cpu().numpy()


class Codec:
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
        self.codec.any_size = True
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
        kind = InstanceError if "sigma must be two" in str(error) else ValueError
        return kind(" (MMPose: ".join([str(error), *said]) + ")" * len(said))

    def _scale_factor(self) -> Array:
        less = 1 if getattr(self, "use_udp", "UDP" in type(self).__name__) else 0
        return ((np.array(self.input_size) - less) / (np.array(self.heatmap_size) - less)).astype(np.float32)

    def _missing(self) -> Array:
        """Where MMPose places joints of maps without a peak: pixel -1, in input pixels."""
        return -getattr(self, "scale_factor", np.ones(2, np.float32))

    def _one(self, keypoints: Array) -> None:
        if keypoints.shape[0] != 1:
            raise InstanceError(
                f"{type(self).__name__}: keypoints must be of one instance, got {keypoints.shape[0]} (MMPose: only "
                "support single-instance keypoint encoding)"
            )

    def encode(self, keypoints: Array, keypoints_visible: Array | None = None) -> dict[str, Any]:
        """``(1, K, 2)`` in input pixels to a dict of arrays, with MMPose's names."""
        self._one(keypoints)
        targets, weights = self.codec.encode(as_tensor(keypoints), as_visible(keypoints_visible))
        targets = targets if isinstance(targets, tuple) else (targets,)
        arrays = {name: target.numpy() for name, target in zip(self.outputs, targets, strict=True)}
        arrays = {name: array[0] if name == "heatmaps" else array for name, array in arrays.items()}
        return arrays | {"keypoint_weights": like_visible(weights, keypoints_visible)}

    def _decoded(self, batch: list[torch.Tensor]) -> tuple[Array, ...]:
        coords, scores, *more = (as_numpy(part) for part in self.codec.decode(*batch))
        missing = ~(scores > 0)
        if missing.any():
            coords = np.where(missing[..., None], self._missing(), coords).astype(coords.dtype)
            scores = np.where(missing, as_numpy(self._maxima(*batch)), scores)
        return coords, scores, *more

    def _maxima(self, *batch: torch.Tensor) -> torch.Tensor:
        """``(B, K)``, at most 0, of maps without a peak: these are MMPose's scores."""
        return batch[0].amax((-2, -1))

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
