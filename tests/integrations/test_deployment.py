"""rtmlib's and torchvision's functions with pypose_ops against their own."""

import numpy as np
import pytest
import torch

from pypose_ops.integrations import rtmlib as for_rtmlib
from pypose_ops.integrations import torchvision as for_torchvision


def need(module):
    return pytest.importorskip(module, exc_type=ImportError)


BOXES = [[20.0, 30.0, 110.0, 230.0], [150.0, 40.0, 270.0, 150.0], [5.0, 10.0, 65.0, 190.0]]


class Net:
    """RTMPose without a net: vectors that depend on the crop."""

    model_input_size, mean, std, to_openpose = (192, 256), (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False

    def inference(self, crop):
        assert crop.shape == (256, 192, 3)
        random = np.random.default_rng(int(1000 * abs(float(np.mean(crop[100:150, 60:120])))) // 50)
        return [random.random((1, 17, n), np.float32) - 0.2 for n in (384, 512)]


def test_rtmpose():
    module = need("rtmlib.tools.pose_estimation.rtmpose")
    image = np.kron(np.random.default_rng(0).integers(0, 256, (30, 40, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    model = type("Model", (Net, module.RTMPose), {"__init__": lambda self: None})()
    crops, centers, scales = zip(*(model.preprocess(image, box) for box in BOXES), strict=True)
    patches, center, scale = for_rtmlib.preprocess(image, BOXES)
    np.testing.assert_allclose(center, centers, atol=1e-4)
    np.testing.assert_allclose(scale, scales, rtol=1e-6)
    # OpenCV's weights are multiples of 1/32, and it writes whole grey levels
    np.testing.assert_allclose(patches.transpose(0, 2, 3, 1), crops, atol=9 / 57)
    assert np.abs(patches.transpose(0, 2, 3, 1) - crops).mean() < 0.5 / 57
    random = np.random.default_rng(1)
    x, y = (random.random((3, 17, n)).astype(np.float32) - 0.2 for n in (384, 512))
    x[0, 0], y[0, 0] = -1, -1
    actual = for_rtmlib.postprocess(x, y, center, scale)
    for i in range(3):
        expected = model.postprocess([x[i : i + 1], y[i : i + 1]], centers[i], scales[i])
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a[i], e[0], rtol=0, atol=2e-3)


def test_replacing_rtmpose():
    module = need("rtmlib.tools.pose_estimation.rtmpose")
    image = np.full((240, 320, 3), 120, np.uint8)
    model = type("Model", (Net, module.RTMPose), {"__init__": lambda self: None})()
    expected = model(image, BOXES)
    with for_rtmlib.replace():
        actual = model(image, BOXES)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=2e-3)


def test_rtmpose_3d():
    module = need("rtmlib.tools.pose_estimation.rtmpose3d")
    image = np.full((240, 320, 3), 120, np.uint8)

    def inference(self, crop):
        random = np.random.default_rng(int(abs(float(np.mean(crop))) * 1000))
        x, y, z = ([random.random((1, 17, n), np.float32) - 0.2] for n in (384, 512, 512))
        x[0][0, 3] = -1
        return [*x, *y, *z]

    members = {"__init__": lambda self: None, "inference": inference, "z_range": 2.0}
    model = type("Model", (module.RTMPose3d,), {**vars(Net), **members})()
    expected = model(image, BOXES)
    with for_rtmlib.replace():
        actual = model(image, BOXES)
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=0, atol=2e-3)


@pytest.mark.parametrize("count", (0, 1, 60))
def test_rtmlibs_nms(count):
    theirs = need("rtmlib.tools.object_detection.post_processings")
    random = np.random.default_rng(count)
    corner = random.random((count, 2)) * 60
    boxes = np.concatenate([corner, corner + 5 + random.random((count, 2)) * 40], 1).astype(np.float32)
    scores = random.random((count, 3)).astype(np.float32)
    for threshold in (0.05, 0.45, 1.0):
        assert for_rtmlib.nms(boxes, scores[:, 0], threshold) == theirs.nms(boxes, scores[:, 0], threshold)
        expected = theirs.multiclass_nms(boxes, scores, threshold, 0.5)
        for a, e in zip(for_rtmlib.multiclass_nms(boxes, scores, threshold, 0.5), expected, strict=True):
            assert (a is None) == (e is None) and (a is None or np.array_equal(a, e))
    from rtmlib.tools.object_detection import yolox

    with for_rtmlib.replace():
        assert yolox.multiclass_nms is for_rtmlib.multiclass_nms
    assert yolox.multiclass_nms is theirs.multiclass_nms


def test_keypoint_rcnn():
    theirs = need("torchvision.models.detection.roi_heads").heatmaps_to_keypoints
    torch.manual_seed(0)
    maps = torch.randn(11, 17, 56, 56)
    corner = torch.rand(11, 2) * 100
    rois = torch.cat((corner, corner + torch.rand(11, 2) * 150), 1)
    rois[0, 2:] = rois[0, :2] + 0.5  # smaller than a pixel
    expected, expected_scores = theirs(maps, rois)
    actual, scores = for_torchvision.heatmaps_to_keypoints(maps, rois, chunk=4)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-4)
    assert for_torchvision.heatmaps_to_keypoints(maps[:0], rois[:0])[0].shape == (0, 17, 3)


def test_tv_tensors():
    need("torchvision.tv_tensors")
    keypoints = torch.tensor([[3.0, 4.0], [-2.0, 5.0], [float("nan"), 1.0]])
    points = for_torchvision.to_tv_tensor(keypoints, (20, 30))
    back, visible = for_torchvision.from_tv_tensor(points)
    torch.testing.assert_close(back, keypoints, equal_nan=True)
    assert visible.tolist() == [True, False, False]
