"""rtmlib's and torchvision's functions with pypose_ops against their own."""

import math

import numpy as np
import pytest
import torch

from pypose_ops import reference
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


def peaks_with_noise(people, joints=17, blobs=1, seed=0):
    """Maps as networks give them, and boxes of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.rand(people, blobs, joints, 2, generator=generator) * 57 - 1
    maps = 12 * reference.gaussian_heatmaps(at, 2.5, (56, 56)) - 4
    corner = torch.rand(people, 2, generator=generator) * 100
    rois = torch.cat((corner, corner + torch.rand(people, 2, generator=generator) * 150), 1)
    rois[0, 2:] = rois[0, :2] + 0.5  # smaller than a pixel
    return maps.float() + 0.3 * torch.randn(maps.shape, generator=generator), rois


@pytest.mark.parametrize("kind", ("one", "two", "many", "mixed", "noise", "ramp", "flat"))
def test_keypoint_rcnn(kind):
    theirs = need("torchvision.models.detection.roi_heads").heatmaps_to_keypoints
    maps, rois = peaks_with_noise(11, blobs={"two": 2, "many": 12}.get(kind, 1))
    if kind in ("noise", "mixed"):
        maps[:: 1 if kind == "noise" else 4] = torch.randn(maps[:: 1 if kind == "noise" else 4].shape)
    if kind in ("ramp", "flat"):
        maps = (torch.arange(56.0) - 20 if kind == "ramp" else torch.tensor(3.0)).expand(maps.shape)
    expected, expected_scores = theirs(maps, rois)
    actual, scores = for_torchvision.heatmaps_to_keypoints(maps, rois)
    if kind in ("one", "two", "many", "mixed", "noise"):  # the others have ties, up to rounding
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-4)


def test_keypoint_rcnns_peaks_are_those_of_whole_maps():
    """Against torch's interpolation: with maps of other sizes, pixels that are not finite, and nobody."""
    maps, rois = peaks_with_noise(3)
    for some in (maps, maps[..., :5, :30], -maps[..., :2, :4].abs()):
        actual, scores = for_torchvision.heatmaps_to_keypoints(some, rois)
        for person, (x0, y0, x1, y1) in enumerate(rois.tolist()):
            width, height = (max(1, math.ceil(n)) for n in ((x1 - x0), (y1 - y0)))
            large = torch.nn.functional.interpolate(some[person][None], (height, width), mode="bicubic")[0]
            ratio = torch.tensor([max(1, x1 - x0) / width, max(1, y1 - y0) / height])
            x, y = ((actual[person, :, :2] - rois[person, :2]) / ratio - 0.5).round().long().unbind(1)
            highest = large.flatten(1).amax(1)
            torch.testing.assert_close(large[torch.arange(17), y, x], highest, rtol=0, atol=1e-4)
            torch.testing.assert_close(scores[person], highest, rtol=0, atol=1e-4)
    odd = maps.clone()
    odd[0, 0], odd[0, 1, 3, 4], odd[0, 2, 5] = torch.nan, torch.nan, -torch.inf
    actual, _ = for_torchvision.heatmaps_to_keypoints(odd, rois)
    expected, _ = for_torchvision.heatmaps_to_keypoints(maps, rois)
    assert actual[0, 0, :2].isnan().all() and torch.equal(actual[0, 3:], expected[0, 3:])
    assert torch.equal(actual[1:], expected[1:])
    assert for_torchvision.heatmaps_to_keypoints(maps[:0], rois[:0])[0].shape == (0, 17, 3)


def test_keypoint_rcnns_peaks_are_exported():
    class Peaks(torch.nn.Module):
        def forward(self, maps, rois):
            return for_torchvision.heatmaps_to_keypoints(maps, rois)

    people = torch.export.Dim("people", min=1)
    given = peaks_with_noise(3)
    program = torch.export.export(Peaks(), given, dynamic_shapes=({0: people}, {0: people}))
    for arguments in (given, peaks_with_noise(5, seed=1)):
        torch.testing.assert_close(program.module()(*arguments), Peaks()(*arguments), rtol=0, atol=1e-4)


def test_tv_tensors():
    need("torchvision.tv_tensors")
    keypoints = torch.tensor([[3.0, 4.0], [-2.0, 5.0], [float("nan"), 1.0]])
    points = for_torchvision.to_tv_tensor(keypoints, (20, 30))
    back, visible = for_torchvision.from_tv_tensor(points)
    torch.testing.assert_close(back, keypoints, equal_nan=True)
    assert visible.tolist() == [True, False, False]


def test_tv_tensors_of_integers_with_visibility():
    need("torchvision.tv_tensors")
    points = for_torchvision.to_tv_tensor(torch.tensor([[3, 4], [5, 6]]), (20, 30), torch.tensor([1.0, math.nan]))
    assert for_torchvision.from_tv_tensor(points)[1].tolist() == [True, False]
    with pytest.raises(ValueError, match=r"to_tv_tensor: visible must be \(2,\), got shape \(1, 2\)"):
        for_torchvision.to_tv_tensor(torch.zeros(2, 2), (20, 30), torch.ones(1, 2))


def test_simcc_of_one_crop_for_many_boxes():
    x, y = (np.random.default_rng(0).random((1, 5, n), dtype=np.float32) for n in (384, 512))
    center, scale = np.array([[10.0, 20], [30, 40], [50, 60]]), np.full((3, 2), 100.0)
    keypoints, _ = for_rtmlib.postprocess(x, y, center, scale)
    for i in range(3):
        alone, _ = for_rtmlib.postprocess(x, y, center[i : i + 1], scale[i : i + 1])
        assert np.array_equal(keypoints[i], alone[0])


def test_visibility_survives_torchvisions_transforms():
    need("torchvision.tv_tensors")
    v2 = need("torchvision.transforms.v2")
    keypoints = torch.tensor([[3.0, 4.0], [9.0, 5.0], [25.0, 18.0], [float("nan"), 1.0]])
    points = for_torchvision.to_tv_tensor(keypoints, (20, 30), torch.tensor([1.0, 0.0, 2.0, 1.0]))
    assert for_torchvision.from_tv_tensor(points)[1].tolist() == [True, False, True, False]
    for transform, moved in (
        (v2.Resize((40, 60)), lambda at: 2 * at + 0.5),
        (v2.RandomRotation((180, 180)), lambda at: torch.tensor([29.0, 19.0]) - at),
    ):
        back, visible = for_torchvision.from_tv_tensor(transform(points))
        torch.testing.assert_close(back[visible], moved(keypoints[[0, 2]]))
        assert visible.tolist() == [True, False, True, False]
    crop = v2.functional.crop(points, 0, 0, 20, 20)
    assert for_torchvision.from_tv_tensor(crop)[1].tolist() == [True, False, False, False]
