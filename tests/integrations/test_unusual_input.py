"""Wrong, empty and unusual input of the integrations."""

import math

import numpy as np
import pytest
import torch

from pypose_ops.integrations import deeplabcut, rtmlib, sleap_nn, transformers

BOXES = [[20.0, 30.0, 90.0, 200.0], [150.0, 40.0, 120.0, 110.0]]
SIZE = (256, 192)


def need(module):
    return pytest.importorskip(module, exc_type=ImportError)


@pytest.mark.parametrize("threshold", (0.2, 0.0, -5.0, -math.inf))
def test_global_peaks_of_maps_that_are_never_positive(threshold):
    theirs = need("sleap_nn.inference.ops.peaks").find_global_peaks
    cms = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(0)) - 2
    cms[0, 1] = 0  # the first pixel is the peak, if 0 is not below the threshold
    expected = theirs(cms, threshold)
    torch.testing.assert_close(sleap_nn.find_global_peaks(cms, threshold), expected, equal_nan=True, rtol=0, atol=0)
    assert expected[0].isnan().all() == (threshold > 0)


@pytest.mark.parametrize("size", (4, 6, 8))
def test_patches_of_even_sizes_are_centred(size):
    """sleap-nn's are not: their peaks move to the right and below, by almost half a pixel where the patch is large."""
    theirs = need("sleap_nn.inference.ops.peaks").find_global_peaks
    at = 10 + 20 * torch.rand(100, 1, 2, generator=torch.Generator().manual_seed(0))
    cms = sleap_nn.make_confmaps(at, torch.arange(40.0), torch.arange(40.0), 1.5)
    off = {f: (f(cms, 0.2, "integral", size)[0] - at).mean((0, 1)) for f in (theirs, sleap_nn.find_global_peaks)}
    assert off[theirs].min() > 0.15 and off[sleap_nn.find_global_peaks].abs().max() < 0.05


def test_grids_with_two_spacings_are_refused():
    points, grid = torch.rand(1, 2, 2) * 20, torch.arange(0, 20, 2.0)
    for x, y in ((2 * grid, grid), (grid**1.5, grid), (grid, grid**1.5)):
        with pytest.raises(ValueError, match=r"xv and yv must have one spacing, \S+, got [xy]v\[\d\] = \S+ after 0"):
            sleap_nn.make_confmaps(points, x, y, 2.0)
        with pytest.raises(ValueError, match="xv and yv must have one spacing"):
            sleap_nn.make_pafs(x, y, points[0, :1], points[0, 1:], 2.0)
    with pytest.raises(ValueError, match="yv must have at least 1 entry"):
        sleap_nn.make_confmaps(points, grid, grid[:0], 2.0)
    assert sleap_nn.make_confmaps(points, grid[:1], grid, 2.0).shape == (1, 2, 10, 1)
    assert sleap_nn.make_confmaps(points, 1e4 + 0.1 * torch.arange(300), 0.1 * torch.arange(5), 2.0).shape[-1] == 300


def test_samples_are_drawn_apart():
    """sleap-nn's function draws everybody into each of several samples; it calls it with one."""
    points, grid = torch.rand(2, 3, 4, 2) * 20, torch.arange(20.0)
    maps = sleap_nn.make_multi_confmaps(points, grid, grid, 2.0)
    for sample in (0, 1):
        assert torch.equal(maps[sample : sample + 1], sleap_nn.make_multi_confmaps(points[[sample]], grid, grid, 2.0))


@pytest.mark.parametrize("boxes", ([[1.0, 2, 3, 4, 0.9]] * 4, [[1.0, 2, 3, 4, 0.9]], [[[1.0, 2, 3, 4]]]))
def test_rtmlibs_boxes_are_four_numbers(boxes):
    with pytest.raises(ValueError, match=r"preprocess: boxes must be \(N, 4\), two corners, got shape \(\d, "):
        rtmlib.preprocess(np.zeros((40, 50, 3), np.uint8), boxes)


def test_rtmlib_of_nobody_and_of_one():
    image = np.zeros((40, 50, 3), np.uint8)
    with pytest.raises(ValueError, match=r"preprocess: image must be \(H, W, 3\), got shape \(40, 50\)"):
        rtmlib.preprocess(image[..., 0], [[1, 2, 3, 4]])
    for nobody in ([], np.zeros((0, 4))):
        assert rtmlib.preprocess(image, nobody)[0].shape == (0, 3, 256, 192)
    for kind in (np.uint8, np.float32, np.float64):
        assert rtmlib.preprocess(image.astype(kind), [1, 2, 30, 40])[0].dtype == np.float32
    x, y = np.random.rand(1, 17, 384), np.random.rand(1, 17, 512)
    _, center, scale = rtmlib.preprocess(image, [[1, 2, 30, 40]])
    expected = rtmlib.postprocess(x, y, center, scale)
    for a, e in zip(rtmlib.postprocess(x, y, center[0], scale[0]), expected, strict=True):
        assert np.array_equal(a, e)


@pytest.mark.parametrize("dtype", (torch.float16, torch.float64))
def test_keypoints_and_boxes_of_other_dtypes(dtype):
    keypoints, boxes, maps = torch.rand(2, 17, 2) * 100 + 50, torch.tensor(BOXES), torch.rand(2, 17, 64, 48)
    keypoints, boxes = keypoints.to(dtype), boxes.to(dtype)
    expected = transformers.pose_loss(maps, keypoints.float(), boxes.float(), SIZE)
    for k, b in ((keypoints, boxes), (keypoints, boxes.float()), (keypoints.float(), boxes)):
        torch.testing.assert_close(transformers.pose_loss(maps, k, b, SIZE), expected, check_dtype=False)
        assert transformers.pose_targets(k, b, SIZE)[0].shape == (2, 17, 64, 48)


def test_as_many_people_as_boxes():
    keypoints, boxes, maps = torch.rand(1, 17, 2), torch.tensor(BOXES), torch.rand(2, 17, 64, 48)
    for call in (transformers.pose_targets, lambda *given: transformers.pose_loss(maps, *given)):
        with pytest.raises(ValueError, match=r"keypoints must be \(N, K, 2\) and boxes \(N, 4\), got \(1, 17, 2\)"):
            call(keypoints, boxes, SIZE)
    for given in ([BOXES, BOXES], [BOXES[:1]], [[]]):
        with pytest.raises(ValueError, match=r"heatmaps must be of \d people, one per box, got 2"):
            transformers.post_process_pose_estimation(maps, given, SIZE)
    assert transformers.post_process_pose_estimation(maps[:0], [[], []], SIZE) == [[], []]


def processors():
    need("transformers")
    vitpose = need("transformers.models.vitpose.image_processing_vitpose").VitPoseImageProcessor()
    sapiens2 = need("transformers.models.sapiens2.image_processing_sapiens2").Sapiens2ImageProcessor
    sapiens2 = sapiens2(size={"height": 128, "width": 96})
    return [(p, transformers.fast_processor(p)) for p in (vitpose, sapiens2)]


def test_images_without_people():
    image = np.zeros((60, 80, 3), np.uint8)
    for _, fast in processors():
        size = fast.size["height"], fast.size["width"]
        for images, boxes, people in (
            (image, [[]], 0),
            ([image, image], [[], []], 0),
            ([image, image], [BOXES, []], 2),
        ):
            assert fast(images, boxes=boxes, return_tensors="pt").pixel_values.shape == (people, 3, *size)
        with pytest.raises(ValueError, match="boxes must be of 1 images, got 2 lists"):
            fast(image, boxes=[BOXES, BOXES], return_tensors="pt")


def test_grey_and_floating_images():
    from PIL import Image

    image = np.kron(np.random.default_rng(0).integers(0, 256, (20, 30)), np.ones((8, 8))).astype(np.uint8)
    for _, fast in processors():
        colour = fast(np.dstack([image] * 3), boxes=[BOXES], return_tensors="pt").pixel_values
        grey = fast(Image.fromarray(image), boxes=[BOXES], return_tensors="pt").pixel_values
        torch.testing.assert_close(grey, colour)
        floating = fast(np.dstack([image] * 3).astype(np.float64), boxes=[BOXES], return_tensors="pt").pixel_values
        torch.testing.assert_close(floating, colour, rtol=0, atol=1e-4)


def test_deeplabcut_decodes_half_maps_to_whole_coordinates():
    """Half numbers above 512 are half a pixel apart, above 1024 one."""
    keypoints = torch.tensor([[[[1021.3, 640.7]]]])
    targets = deeplabcut.heatmap_targets(keypoints, torch.ones(1, 1, 1), (100, 150), 8.0)
    poses = deeplabcut.decode(targets.heatmaps.half(), targets.locref.half(), 8.0, apply_sigmoid=False)
    assert poses.dtype == torch.float32
    torch.testing.assert_close(poses[..., :2], keypoints, rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"keypoints": torch.ones(3, 4, 2)}, r"keypoints must be \(B, P, K, 2\), got shape \(3, 4, 2\)"),
        ({"keypoints": torch.ones(2, 3, 4, 3)}, r"keypoints must be \(B, P, K, 2\), got shape \(2, 3, 4, 3\)"),
        ({"visible": torch.ones(3, 4)}, r"visible must be \(2, 3, 4\), got shape \(3, 4\)"),
        ({"stride": 0}, "stride must be positive, got 0"),
        ({"stride": -8}, "stride must be positive, got -8"),
        ({"dist_thresh": 0.0}, r"dist_thresh must be positive, got 0\.0"),
        ({"dist_thresh": math.nan}, "dist_thresh must be positive, got nan"),
    ],
)
@pytest.mark.parametrize("kind", ("gaussian", "plateau"))
def test_deeplabcuts_targets_refuse(changed, message, kind):
    given = {"keypoints": torch.ones(2, 3, 4, 2), "visible": torch.ones(2, 3, 4), "size": (20, 30), "stride": 8}
    with pytest.raises(ValueError, match=f"^heatmap_targets: {message}$"):
        deeplabcut.heatmap_targets(**{**given, "kind": kind, **changed})


def test_deeplabcuts_decoding_refuses():
    maps, locref = torch.rand(2, 4, 5, 6), torch.rand(2, 8, 5, 6)
    for wrong in (maps[0], maps[..., :0]):
        with pytest.raises(ValueError, match=r"decode: heatmaps must be \(B, K, H, W\), not empty, got shape"):
            deeplabcut.decode(wrong, None, 8.0)
    for wrong in (locref[:, :6], locref[..., :3], locref[0]):
        with pytest.raises(ValueError, match=r"decode: locref must be \(2, 8, 5, 6\), got shape"):
            deeplabcut.decode(maps, wrong, 8.0)
    assert deeplabcut.decode(maps[:0], locref[:0], 8.0).shape == (0, 1, 4, 3)
