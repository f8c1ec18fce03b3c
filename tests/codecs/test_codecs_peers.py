"""The codecs equal those of other libraries, by their formulas and by an installed mmpose."""

import importlib.util
import math
from pathlib import Path

import codec_reference as peer
import numpy as np
import pytest
import torch
from codec_reference import GRID, INPUT, SIZE, keypoints_of

from pypose_ops import codecs


def heatmap_points(codec, keypoints):
    scale = [(n - 1) / (m - 1) if codec.align == "corners" else n / m for n, m in zip(GRID, INPUT, strict=True)]
    return keypoints.numpy() * scale


def assert_same_as_peer(codec, draw, channels=1, top=1.0):
    """Every joint's map and weight against the library's formula, in float64."""
    keypoints, visible = keypoints_of()
    maps, weights = codec.encode(keypoints, visible, dtype=torch.float64)
    maps = maps.unflatten(1, (17, channels)).numpy()
    points = heatmap_points(codec, keypoints)
    dropped = 0
    for b, k in np.ndindex(*visible.shape):
        expected = draw(points[b, k]) if visible[b, k] else None
        dropped += expected is None and bool(visible[b, k])
        assert weights[b, k] == (expected is not None), (b, k, points[b, k])
        expected = np.zeros((channels, *SIZE)) if expected is None else expected.reshape(channels, *SIZE)
        np.testing.assert_allclose(maps[b, k], expected, rtol=0, atol=1e-5 * top, err_msg=str(points[b, k]))
    return dropped


@pytest.mark.parametrize("sigma", (2.0, 1.5, 2.2, 3.0))
def test_msra_is_mmposes(sigma):
    codec = codecs.MSRAHeatmap(INPUT, GRID, sigma, compat="mmpose")
    assert_same_as_peer(codec, lambda p: peer.msra(p, sigma, SIZE))
    unbiased = codecs.MSRAHeatmap(INPUT, GRID, sigma, unbiased=True, compat="mmpose")
    assert_same_as_peer(unbiased, lambda p: peer.unbiased(p, sigma, SIZE))


@pytest.mark.parametrize("sigma", (2.0, 1.5, 2.2, 3.0))
def test_udp_is_mmposes(sigma):
    codec = codecs.UDPHeatmap(INPUT, GRID, sigma=sigma, compat="mmpose")
    assert_same_as_peer(codec, lambda p: peer.udp(p, sigma, SIZE))


def test_udp_combined_is_mmposes():
    codec = codecs.UDPHeatmap(INPUT, GRID, "combined", compat="mmpose")
    assert assert_same_as_peer(codec, lambda p: peer.combined(p, 0.0546875 * 64, SIZE), channels=3) == 0


@pytest.mark.parametrize("kernel_size", (11, 15, 23))
def test_megvii_is_mmposes(kernel_size):
    codec = codecs.MegviiHeatmap(INPUT, GRID, kernel_size, compat="mmpose")
    assert assert_same_as_peer(codec, lambda p: peer.megvii(p, kernel_size, SIZE), top=255) > 0


@pytest.mark.parametrize("sigma", (1.0, 1.75))
def test_hourglass_is_the_authors(sigma):
    codec = codecs.HourglassHeatmap(INPUT, GRID, sigma, compat="hourglass")
    keypoints, _ = keypoints_of(beyond=0.0)
    maps, _ = codec.encode(keypoints, dtype=torch.float64)
    points = heatmap_points(codec, keypoints)
    for b, k in np.ndindex(3, 17):
        np.testing.assert_allclose(maps[b, k].numpy(), peer.hourglass(points[b, k], sigma, SIZE), atol=1e-9)


def test_cpm_is_the_authors():
    codec = codecs.CPMHeatmap((368, 368), (46, 46), compat="cpm")
    people = torch.rand(2, 4, 3, 2, dtype=torch.float64) * 380 - 6
    people[:, 1] = people[:, 0] + 3  # so that sums are clipped
    maps, weights = codec.encode(people, dtype=torch.float64)
    points = (people.numpy() - 3.5) / 8  # grid point g is at 8 g + 3.5
    for b in range(2):
        expected = np.stack([peer.cpm(points[b, :, k], 0.875, (46, 46)) for k in range(3)])
        np.testing.assert_allclose(maps[b, :3].numpy(), expected, atol=1e-9)
        np.testing.assert_allclose(maps[b, 3].numpy(), 1 - expected.max(0), atol=1e-9)
    assert (maps[:, :3] == 1).any() and weights.shape == (2, 4, 3)
    default, _ = codecs.CPMHeatmap((368, 368), (46, 46)).encode(people, dtype=torch.float64)
    assert 0 < (default - maps).abs().max() < 0.02


def test_the_centre_map_of_cpm():
    maps = codecs.CPMHeatmap((368, 368), (46, 46)).center_map(torch.tensor([[184.0, 100.0]]))
    assert maps.shape == (1, 1, 368, 368)
    assert maps[0, 0, 100, 184] == 1 and maps[0, 0, 121, 184] == pytest.approx(math.exp(-0.5))


@pytest.mark.parametrize("compat", (None, "centernet"))
def test_centernet_radii_and_maps(compat):
    codec = codecs.CenterNetHeatmap((512, 512), (128, 128), compat=compat)
    boxes = torch.rand(1, 6, 2, dtype=torch.float64) * 300 + 4
    radii = codec.radius(boxes)
    for p in range(6):
        width, height = np.ceil(boxes[0, p].numpy() / 4)
        assert radii[0, p] == peer.centernet_radius(width, height, 0.7, compat is None)
    keypoints = torch.rand(1, 6, 5, 2, dtype=torch.float64) * 511
    maps, _ = codec.encode(keypoints, boxes=boxes, dtype=torch.float64)
    points = keypoints.numpy() / 4 + (0 if compat else 0.5)  # the library drops the fraction, the default rounds
    for k in range(5):
        people = [peer.centernet(points[0, p, k], radii[0, p].item(), (128, 128)) for p in range(6)]
        inside = (np.floor(points[0, :, k]) < 128).all(-1)
        expected = np.max([blob for blob, use in zip(people, inside, strict=True) if use], axis=0)
        np.testing.assert_allclose(maps[0, k].numpy(), expected, atol=1e-9)


def test_centernets_radius_keeps_the_overlap():
    """The corrected radius moves a box's corners and still overlaps by 0.7, in all three cases."""
    codec = codecs.CenterNetHeatmap((512, 512), (512, 512))
    width, height = 200.0, 120.0
    r = codec.radius(torch.tensor([[[width, height]]])).item()
    shifted = (width - r) * (height - r)
    assert shifted / (2 * width * height - shifted) >= 0.7
    assert (width - 2 * r) * (height - 2 * r) / (width * height) >= 0.7
    assert width * height / ((width + 2 * r) * (height + 2 * r)) >= 0.7
    wrong = codecs.CenterNetHeatmap((512, 512), (512, 512), compat="centernet").radius(
        torch.tensor([[[width, height]]])
    )
    assert wrong.item() > 2 * r


@pytest.mark.parametrize("normalize", (True, False))
def test_simcc_is_mmposes(normalize):
    codec = codecs.SimCCLabel(INPUT, sigma=(4.9, 5.66), normalize=normalize)
    keypoints, visible = keypoints_of(beyond=3.0)
    (x, y), weights = codec.encode(keypoints, visible, dtype=torch.float64)
    assert x.shape == (3, 17, 384) and y.shape == (3, 17, 512)
    assert (weights == visible).all()
    for b, k in np.ndindex(3, 17):
        for label, axis in ((x, 0), (y, 1)):
            expected = peer.simcc(keypoints[b, k, axis].item(), (4.9, 5.66)[axis], label.shape[-1], 2.0, normalize)
            expected = expected if visible[b, k] else 0 * expected
            np.testing.assert_allclose(label[b, k].numpy(), expected, atol=1e-9)


def test_simcc_with_label_smoothing():
    codec = codecs.SimCCLabel((4, 3), "standard", label_smooth_weight=0.1)
    (x, y), weights = codec.encode(torch.tensor([[[1.6, 2.0], [4.0, 0.0], [3.74, 0.0]]]))
    assert weights.tolist() == [[1, 0, 1]]
    torch.testing.assert_close(x[0, 0], torch.tensor([0.1 / 7] * 3 + [0.9] + [0.1 / 7] * 4))
    assert y[0, 0].argmax() == 4 and x[0, 2].argmax() == 7 and not x[0, 1].any() and not y[0, 1].any()


def test_regression_weights_are_mmposes():
    codec = codecs.RegressionLabel((192, 256))
    keypoints = torch.tensor([[[0.0, 0.0], [191.0, 255.0], [191.5, 3.0], [-0.1, 3.0], [math.nan, 3.0], [3.0, 3.0]]])
    labels, weights = codec.encode(keypoints, torch.tensor([[1.0, 1, 1, 1, 1, 0]]))
    assert weights.tolist() == [[1, 1, 0, 0, 0, 0]]
    torch.testing.assert_close(labels[0, 1], torch.tensor([191 / 192, 255 / 256]))


def mmpose_module(name):
    """One file of an installed mmpose, without importing the package, which needs mmcv."""
    package = importlib.util.find_spec("mmpose")
    if package is None:
        pytest.skip("mmpose is not installed")
    path = Path(package.submodule_search_locations[0], "codecs", "utils", f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"peer_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("sigma", (2.0, 1.5, 2.2, 3.0))
@pytest.mark.parametrize(
    ("codec", "function"),
    [
        (lambda s: codecs.MSRAHeatmap(INPUT, GRID, s, compat="mmpose"), "generate_gaussian_heatmaps"),
        (lambda s: codecs.MSRAHeatmap(INPUT, GRID, s, True, compat="mmpose"), "generate_unbiased_gaussian_heatmaps"),
        (lambda s: codecs.UDPHeatmap(INPUT, GRID, sigma=s, compat="mmpose"), "generate_udp_gaussian_heatmaps"),
    ],
)
def test_maps_are_those_of_an_installed_mmpose(codec, function, sigma):
    generate = getattr(mmpose_module("gaussian_heatmap"), function)
    codec = codec(sigma)
    keypoints, visible = keypoints_of()
    maps, weights = codec.encode(keypoints, visible)
    points = heatmap_points(codec, keypoints)
    for b in range(3):
        expected, weight = generate(GRID, points[b : b + 1], visible[b : b + 1].numpy(), sigma)
        np.testing.assert_allclose(maps[b].numpy(), expected, atol=1e-5)
        np.testing.assert_array_equal(weights[b].numpy(), weight[0])


def test_combined_maps_are_those_of_an_installed_mmpose():
    generate = mmpose_module("offset_heatmap").generate_offset_heatmap
    codec = codecs.UDPHeatmap(INPUT, GRID, "combined", compat="mmpose")
    keypoints, visible = keypoints_of()
    maps, weights = codec.encode(keypoints, visible)
    points = heatmap_points(codec, keypoints)
    for b in range(3):
        expected, weight = generate(GRID, points[b : b + 1], visible[b : b + 1].numpy(), 0.0546875)
        np.testing.assert_allclose(maps[b].numpy(), expected, atol=1e-5)
        np.testing.assert_array_equal(weights[b].numpy(), weight[0])
