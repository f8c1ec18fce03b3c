"""The codecs of :mod:`pypose_ops.codecs` for MMPose's configs: importing this module registers them.

    custom_imports = dict(imports=["pypose_ops.integrations.mmpose"])
    codec = dict(type="pypose_ops.MSRAHeatmap", input_size=(192, 256), heatmap_size=(48, 64), sigma=2)

They take and return numpy, as MMPose's own do, and default to ``compat="mmpose"``: the values are MMPose's, and what it
makes up for after a codec still fits. Needs MMEngine; MMPose and MMCV only where a config of theirs is run.
"""

import numpy as np
import torch
from mmengine.registry import TASK_UTILS, Registry

from .. import codecs

CODECS = Registry("keypoint codec", parent=TASK_UTILS, scope="pypose_ops")


class _NumpyCodec:
    """One picture at a time, in numpy: keypoints ``(1, K, 2)`` and visibilities ``(1, K)``."""

    # What MMPose's PackPoseInputs reads.
    auxiliary_encode_keys = set()
    instance_mapping_table = {}
    field_mapping_table = {}
    label_mapping_table = {"keypoint_weights": "keypoint_weights"}
    outputs = ("heatmaps",)
    support_batch_decoding = True

    def __init__(self, *args, **kwargs):
        if self.has_compat:
            kwargs.setdefault("compat", "mmpose")
        self.codec = self.wrapped(*args, **kwargs)

    def encode(self, keypoints, keypoints_visible=None):
        """``(1, K, 2)`` in input pixels to a dict of arrays, named as MMPose names them."""
        if keypoints.shape[0] != 1:
            raise ValueError(f"{type(self).__name__}: keypoints must be of one instance, got {keypoints.shape[0]}")
        visible = None if keypoints_visible is None else torch.from_numpy(np.asarray(keypoints_visible, np.float32))
        targets, weights = self.codec.encode(torch.from_numpy(np.asarray(keypoints, np.float32)), visible)
        targets = targets if isinstance(targets, tuple) else (targets,)
        arrays = {name: target.numpy() for name, target in zip(self.outputs, targets, strict=True)}
        arrays = {name: array[0] if name == "heatmaps" else array for name, array in arrays.items()}
        return arrays | {"keypoint_weights": weights.numpy()}

    def decode(self, *encoded):
        """Arrays of one picture, as ``encode`` or a net gives them, to ``(1, K, 2)`` and scores ``(1, K)``."""
        batch = [torch.from_numpy(np.ascontiguousarray(array)) for array in encoded]
        batch = [tensor[None] if tensor.dim() == self.batch_dims - 1 else tensor for tensor in batch]
        keypoints, scores = self.codec.decode(*batch)
        return keypoints.numpy(), scores.numpy()

    def batch_decode(self, *encoded):
        """Tensors of a batch, on any device, to two lists with an array per picture."""
        keypoints, scores = self.codec.decode(*encoded)
        return list(keypoints.cpu().numpy()[:, None]), list(scores.cpu().numpy()[:, None])


def _register(wrapped, outputs=("heatmaps",), batch_dims=4, has_compat=True, fields=("heatmaps",)):
    labels = [name for name in (*outputs, "keypoint_weights") if name not in fields]
    members = {
        "wrapped": wrapped,
        "outputs": outputs,
        "batch_dims": batch_dims,
        "has_compat": has_compat,
        "field_mapping_table": {name: name for name in fields if name in outputs},
        "label_mapping_table": {name: name for name in labels},
        "__doc__": f":class:`pypose_ops.codecs.{wrapped.__name__}` in numpy.",
        "__module__": __name__,
    }
    return CODECS.register_module(module=type(wrapped.__name__, (_NumpyCodec,), members))


MSRAHeatmap = _register(codecs.MSRAHeatmap)
UDPHeatmap = _register(codecs.UDPHeatmap)
MegviiHeatmap = _register(codecs.MegviiHeatmap)
RegressionLabel = _register(codecs.RegressionLabel, ("keypoint_labels",), 3, has_compat=False)
IntegralRegressionLabel = _register(codecs.IntegralRegressionLabel, ("keypoint_labels", "heatmaps"), 3)
SimCCLabel = _register(codecs.SimCCLabel, ("keypoint_x_labels", "keypoint_y_labels"), 3, has_compat=False)
