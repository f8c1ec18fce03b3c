"""The codecs in MMPose's own registry, as a config of MMPose asks for them."""

import numpy as np
import pytest
import torch

PEERS = pytest.importorskip("mmpose.registry", exc_type=ImportError).KEYPOINT_CODECS

from pypose_ops import codecs  # noqa: E402
from pypose_ops.integrations import mmpose  # noqa: E402

SIZES = {"input_size": (192, 256), "heatmap_size": (48, 64)}
CONFIGS = {
    "MSRAHeatmap": SIZES | {"sigma": 2},
    "UDPHeatmap": SIZES | {"heatmap_type": "combined"},
    "MegviiHeatmap": SIZES | {"kernel_size": 11},
    "RegressionLabel": {"input_size": (192, 256)},
    "IntegralRegressionLabel": SIZES | {"sigma": 2.0},
    "SimCCLabel": {"input_size": (192, 256), "sigma": 6.0},
}


def build(name, **options):
    return PEERS.build({"type": f"pypose_ops.{name}", **CONFIGS[name], **options})


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_build_codecs_that_speak_numpy(name):
    codec = build(name)
    keypoints = np.random.default_rng(0).random((1, 17, 2)).astype(np.float32) * 180
    visible = np.ones((1, 17), np.float32)
    encoded = codec.encode(keypoints, visible)
    tables = {**codec.field_mapping_table, **codec.label_mapping_table}
    assert set(tables) == set(encoded) and all(isinstance(v, np.ndarray) for v in encoded.values())
    assert encoded["keypoint_weights"].shape == (1, 17)
    if "heatmaps" in encoded:
        assert encoded["heatmaps"].shape[1:] == (64, 48)
    compat = {} if name in ("RegressionLabel", "SimCCLabel") else {"compat": "mmpose"}
    targets, _ = getattr(codecs, name)(**CONFIGS[name], **compat).encode(torch.from_numpy(keypoints))
    targets = targets if isinstance(targets, tuple) else (targets,)
    for output, target in zip(codec.outputs, targets, strict=True):
        np.testing.assert_array_equal(encoded[output].reshape(target.shape), target.numpy())


@pytest.mark.parametrize("name", ("MSRAHeatmap", "MegviiHeatmap", "RegressionLabel", "IntegralRegressionLabel"))
def test_decoding_one_and_many(name):
    codec = build(name)
    keypoints = np.random.default_rng(1).random((1, 17, 2)).astype(np.float32) * 180 + 4
    encoded = codec.encode(keypoints)
    first = encoded[codec.outputs[0]]
    coords, scores = codec.decode(first)
    assert coords.shape == (1, 17, 2) and scores.shape == (1, 17)
    np.testing.assert_allclose(coords, keypoints, atol=4.0)
    batch = torch.from_numpy(first.reshape(1, *first.shape[-codec.batch_dims + 1 :])).repeat_interleave(2, 0)
    many, many_scores = codec.batch_decode(batch)
    assert len(many) == len(many_scores) == 2
    np.testing.assert_array_equal(many[1], coords)


def test_compat_is_the_default_and_can_be_left():
    assert build("MSRAHeatmap").codec.compat == "mmpose"
    assert build("MSRAHeatmap", compat=None).codec.compat is None


def test_several_instances_are_refused():
    with pytest.raises(ValueError, match="MSRAHeatmap: keypoints must be of one instance, got 2"):
        build("MSRAHeatmap").encode(np.zeros((2, 17, 2), np.float32))


def test_the_registry_is_ours():
    assert mmpose.CODECS.scope == "pypose_ops" and len(mmpose.CODECS) == 12
