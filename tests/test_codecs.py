"""The codecs: encode then decode, parity with peers' formulas, weights, the fused loss, bad input."""

import importlib.util
import math
from pathlib import Path

import codec_reference as peer
import numpy as np
import pytest
import torch

from pypose_ops import codecs, reference
from pypose_ops._geometry_maps import scale_coordinates

INPUT, GRID = (192, 256), (48, 64)
SIZE = GRID[::-1]
NAN = math.nan


def keypoints_of(batch=3, joints=17, beyond=25.0):
    """Keypoints in and around the input, and their visibility."""
    generator = torch.Generator().manual_seed(5)
    span = torch.tensor(INPUT) + 2 * beyond
    keypoints = torch.rand(batch, joints, 2, generator=generator, dtype=torch.float64) * span - beyond
    keypoints[0, :4] = torch.tensor([[0.0, 0.0], [8.0, 8.0], [191.0, 255.0], [-1.9, 3.0]])
    visible = (torch.rand(batch, joints, generator=generator) > 0.2).double()
    visible[0, :4] = 1
    return keypoints, visible


# Encode, then decode --------------------------------------------------------------------------------------------------


def at(codec, points):
    """Points of the heatmap's grid, in input pixels."""
    return codec.from_heatmap(points)


EXACT = {
    "msra unbiased": codecs.MSRAHeatmap(INPUT, GRID, 2.0, unbiased=True),
    "msra unbiased, sigma 1": codecs.MSRAHeatmap(INPUT, GRID, 1.0, unbiased=True, blur_kernel_size=3),
    "msra unbiased, sigma 1.5": codecs.MSRAHeatmap(INPUT, GRID, 1.5, unbiased=True, blur_kernel_size=7),
    "msra unbiased, sigma 3": codecs.MSRAHeatmap(INPUT, GRID, 3.0, unbiased=True, blur_kernel_size=17),
    "udp": codecs.UDPHeatmap(INPUT, GRID),
    "udp, sigma 3": codecs.UDPHeatmap(INPUT, GRID, sigma=3.0, blur_kernel_size=17),
    "udp combined": codecs.UDPHeatmap(INPUT, GRID, "combined"),
    "cpm": codecs.CPMHeatmap((368, 368), (46, 46)),
    "cpm, sigma 2": codecs.CPMHeatmap((368, 368), (46, 46), sigma=2.0),
}
ROUNDED = {
    "msra": codecs.MSRAHeatmap(INPUT, GRID, 2.0),
    "msra, sigma 1.5": codecs.MSRAHeatmap(INPUT, GRID, 1.5),
    "megvii": codecs.MegviiHeatmap(INPUT, GRID, 11),
    "hourglass": codecs.HourglassHeatmap(INPUT, GRID, 1.0),
    "hourglass, parity": codecs.HourglassHeatmap(INPUT, GRID, 1.0, parity="hourglass"),
}


def border_points(size, beyond):
    """Points of a grid of that size and ``beyond`` pixels around it: everywhere, along the sides and in the corners."""
    last = torch.tensor(size, dtype=torch.float64) - 1
    everywhere = torch.rand(400, 2, dtype=torch.float64) * (last + 2 * beyond) - beyond
    sides = everywhere.clone()
    axis = torch.arange(400) % 2
    rows = torch.arange(400)
    near = torch.rand(400, dtype=torch.float64) * (6 + beyond) - beyond
    sides[rows, axis] = torch.where(rows % 4 < 2, near, last[axis] - near)
    corners = torch.tensor([[-beyond, -beyond], [0.0, 0.0], [0.4, 0.6], [1.5, 1.49]], dtype=torch.float64)
    return torch.cat((everywhere, sides, corners, last - corners))


def heatmap_error(codec, points, **options):
    """How far decode(encode()) is off, in heatmap pixels: (n,) for n points."""
    maps, weights = codec.encode(at(codec, points)[:, None].float(), **options)
    assert (weights == 1).all()
    coords, scores = codec.decode(maps)
    assert (scores > 0).all()
    back = scale_coordinates(coords[:, 0].double(), codec.input_size[::-1], codec.size, align=codec.align)
    return (back - points).abs().amax(-1)


@pytest.mark.parametrize("align", ("index", "center", "corners"))
@pytest.mark.parametrize("name", EXACT)
def test_exact_codecs_return_the_keypoint(kernels, device, monkeypatch, name, align):
    """Also at the border, and in the half pixel outside of the outermost pixels' centres."""
    codec = EXACT[name]
    monkeypatch.setattr(codec, "align", align)
    monkeypatch.setattr(codec, "_transforms", {})
    points = border_points(codec.heatmap_size, 0.5)[:: 8 if kernels == "simt" else 1]
    assert heatmap_error(codec, points.to(device)).max() < 1e-2


@pytest.mark.parametrize("beyond", (0.0, 0.45))
def test_exact_simcc_returns_the_keypoint(kernels, device, beyond):
    codec = codecs.SimCCLabel(INPUT, use_dark=True, center="exact")
    points = border_points(INPUT, beyond)[:: 8 if kernels == "simt" else 1, None].to(device)
    (x, y), weights = codec.encode(points.float())
    assert (weights == 1).all()
    assert (codec.decode(x, y).coords.double() - points).abs().max() < 1e-2


def test_simcc_returns_half_a_bin(kernels, device):
    points = border_points(INPUT, 0.0)[:: 8 if kernels == "simt" else 1, None].to(device)
    for codec in (codecs.SimCCLabel(INPUT), codecs.SimCCLabel(INPUT, "standard", label_smooth_weight=0.1)):
        (x, y), weights = codec.encode(points.float())
        assert (weights == 1).all()
        assert (codec.decode(x, y).coords.double() - points).abs().max() <= 0.25 + 1e-5


@pytest.mark.parametrize("align", ("index", "center", "corners"))
@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_codecs_return_half_a_pixel(kernels, device, monkeypatch, name, align):
    codec = ROUNDED[name]
    monkeypatch.setattr(codec, "align", align)
    monkeypatch.setattr(codec, "_transforms", {})
    points = border_points(codec.heatmap_size, 0.0)[:: 8 if kernels == "simt" else 1]
    assert heatmap_error(codec, points.to(device)).max() <= 0.5 + 1e-5


def test_centernet_returns_half_a_pixel(kernels, device):
    codec = codecs.CenterNetHeatmap((512, 512), (128, 128))
    points = torch.rand(50, 2, dtype=torch.float64, device=device) * 127
    keypoints = at(codec, points)[:, None, None].float()
    maps, weights = codec.encode(keypoints, boxes=torch.full((50, 1, 2), 90.0, device=device))
    coords, _ = codec.decode(maps, refine="none")
    assert (weights == 1).all()
    assert (codec.to_heatmap(coords[:, 0].double()) - points).abs().max() <= 0.5 + 1e-5


@pytest.mark.parametrize("codec", (codecs.RegressionLabel(INPUT), codecs.IntegralRegressionLabel(INPUT, GRID, 2.0)))
def test_regression_returns_the_keypoint(codec):
    keypoints = torch.rand(3, 17, 2) * 190
    labels, weights = codec.encode(keypoints)
    labels = labels[0] if isinstance(labels, tuple) else labels
    coords, scores = codec.decode(labels)
    torch.testing.assert_close(coords, keypoints)
    assert (weights == 1).all() and (scores == 1).all()


def test_a_map_without_a_peak_decodes_to_minus_one(kernels, device):
    for codec in (EXACT["msra unbiased"], ROUNDED["msra"], ROUNDED["megvii"]):
        coords, scores = codec.decode(torch.zeros(1, 2, *SIZE, device=device))
        assert (coords == -1).all() and (scores == 0).all()


# Parity with peers ----------------------------------------------------------------------------------------------------


def heatmap_points(codec, keypoints):
    scale = [(n - 1) / (m - 1) if codec.align == "corners" else n / m for n, m in zip(GRID, INPUT, strict=True)]
    return keypoints.numpy() * scale


def assert_parity(codec, draw, channels=1, top=1.0):
    """Every joint's map and weight against the peer's formula, in float64."""
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
    codec = codecs.MSRAHeatmap(INPUT, GRID, sigma, parity="mmpose")
    assert_parity(codec, lambda p: peer.msra(p, sigma, SIZE))
    unbiased = codecs.MSRAHeatmap(INPUT, GRID, sigma, unbiased=True, parity="mmpose")
    assert_parity(unbiased, lambda p: peer.unbiased(p, sigma, SIZE))


@pytest.mark.parametrize("sigma", (2.0, 1.5, 2.2, 3.0))
def test_udp_is_mmposes(sigma):
    codec = codecs.UDPHeatmap(INPUT, GRID, sigma=sigma, parity="mmpose")
    assert_parity(codec, lambda p: peer.udp(p, sigma, SIZE))


def test_udp_combined_is_mmposes():
    codec = codecs.UDPHeatmap(INPUT, GRID, "combined", parity="mmpose")
    assert assert_parity(codec, lambda p: peer.combined(p, 0.0546875 * 64, SIZE), channels=3) == 0


@pytest.mark.parametrize("kernel_size", (11, 15, 23))
def test_megvii_is_mmposes(kernel_size):
    codec = codecs.MegviiHeatmap(INPUT, GRID, kernel_size, parity="mmpose")
    assert assert_parity(codec, lambda p: peer.megvii(p, kernel_size, SIZE), top=255) > 0


@pytest.mark.parametrize("sigma", (1.0, 1.75))
def test_hourglass_is_the_authors(sigma):
    codec = codecs.HourglassHeatmap(INPUT, GRID, sigma, parity="hourglass")
    keypoints, _ = keypoints_of(beyond=0.0)
    maps, _ = codec.encode(keypoints, dtype=torch.float64)
    points = heatmap_points(codec, keypoints)
    for b, k in np.ndindex(3, 17):
        np.testing.assert_allclose(maps[b, k].numpy(), peer.hourglass(points[b, k], sigma, SIZE), atol=1e-9)


def test_cpm_is_the_authors():
    codec = codecs.CPMHeatmap((368, 368), (46, 46), parity="cpm")
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


@pytest.mark.parametrize("parity", (None, "centernet"))
def test_centernet_radii_and_maps(parity):
    codec = codecs.CenterNetHeatmap((512, 512), (128, 128), parity=parity)
    boxes = torch.rand(1, 6, 2, dtype=torch.float64) * 300 + 4
    radii = codec.radius(boxes)
    for p in range(6):
        width, height = np.ceil(boxes[0, p].numpy() / 4)
        assert radii[0, p] == peer.centernet_radius(width, height, 0.7, parity is None)
    keypoints = torch.rand(1, 6, 5, 2, dtype=torch.float64) * 511
    maps, _ = codec.encode(keypoints, boxes=boxes, dtype=torch.float64)
    points = keypoints.numpy() / 4 + (0 if parity else 0.5)  # the peer drops the fraction, the default rounds
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
    wrong = codecs.CenterNetHeatmap((512, 512), (512, 512), parity="centernet").radius(
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
    keypoints = torch.tensor([[[0.0, 0.0], [191.0, 255.0], [191.5, 3.0], [-0.1, 3.0], [NAN, 3.0], [3.0, 3.0]]])
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
        (lambda s: codecs.MSRAHeatmap(INPUT, GRID, s, parity="mmpose"), "generate_gaussian_heatmaps"),
        (lambda s: codecs.MSRAHeatmap(INPUT, GRID, s, True, parity="mmpose"), "generate_unbiased_gaussian_heatmaps"),
        (lambda s: codecs.UDPHeatmap(INPUT, GRID, sigma=s, parity="mmpose"), "generate_udp_gaussian_heatmaps"),
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
    codec = codecs.UDPHeatmap(INPUT, GRID, "combined", parity="mmpose")
    keypoints, visible = keypoints_of()
    maps, weights = codec.encode(keypoints, visible)
    points = heatmap_points(codec, keypoints)
    for b in range(3):
        expected, weight = generate(GRID, points[b : b + 1], visible[b : b + 1].numpy(), 0.0546875)
        np.testing.assert_allclose(maps[b].numpy(), expected, atol=1e-5)
        np.testing.assert_array_equal(weights[b].numpy(), weight[0])


# The default is right -------------------------------------------------------------------------------------------------


def test_a_fractional_window_is_centred():
    """3 sigma = 4.5: MMPose puts the joint at pixel 2 onto pixel 3."""
    keypoints = torch.tensor([[[8.0, 8.0]]])
    right, wrong = (
        codecs.MSRAHeatmap(INPUT, GRID, 1.5, parity=parity).encode(keypoints)[0][0, 0] for parity in (None, "mmpose")
    )
    assert right[2].argmax() == 2 and wrong[3].argmax() == 3


def test_weights_and_strange_keypoints(kernels, device):
    keypoints = torch.tensor([[[NAN, 1], [math.inf, 1], [1e30, 1], [-30, 1], [-20, 1], [100, 100]]], device=device)
    for codec in (EXACT["msra unbiased"], ROUNDED["msra"]):
        maps, weights = codec.encode(keypoints)
        assert weights.tolist() == [[0, 0, 0, 0, 1, 1]]
        assert maps.isfinite().all() and not maps[0, :4].any() and maps[0, 4].any()
    visible = torch.tensor([[1, 1, 1, 1, 0, 2]], device=device)
    assert codec.encode(keypoints, visible)[1].tolist() == [[0, 0, 0, 0, 0, 1]]


SIMCC = {
    "simcc": codecs.SimCCLabel(INPUT),
    "simcc, exact": codecs.SimCCLabel(INPUT, center="exact"),
    "simcc, one hot": codecs.SimCCLabel(INPUT, "standard"),
    "integral": codecs.IntegralRegressionLabel(INPUT, GRID, 2.0),
    "regression": codecs.RegressionLabel(INPUT),
}


@pytest.mark.parametrize("name", [*EXACT, *ROUNDED, *SIMCC])
def test_joints_that_are_missing_or_far_away_draw_nothing(kernels, device, name):
    """Nobody to be seen, not finite, 1e30 away; an ordinary joint beside them is drawn as if it were alone."""
    codec = (EXACT | ROUNDED | SIMCC)[name]
    strange = [[NAN, 1.0], [50.0, NAN], [math.inf, 1.0], [1.0, -math.inf], [1e30, 1.0], [-1e30, 1e30], [3e38, -3e38]]
    keypoints = torch.tensor([[*strange, [100.0, 100.0]]], device=device)
    targets, weights = codec.encode(keypoints)
    alone, _ = codec.encode(keypoints[:, 7:])
    assert weights.tolist() == [[0] * 7 + [1]]
    nobody, none = codec.encode(keypoints, torch.zeros(1, 8, device=device))
    assert not none.any()
    for target, single, empty in zip(
        *(v if isinstance(v, tuple) else (v,) for v in (targets, alone, nobody)), strict=True
    ):
        if target.shape[-1] == 2:
            continue  # coordinates are what they are
        channels = single.shape[1] - (1 if "cpm" in name else 0)
        joints = target[:, : 8 * channels]
        assert target.isfinite().all() and not joints[:, : 7 * channels].any()
        torch.testing.assert_close(joints[:, 7 * channels :], single[:, :channels], rtol=0, atol=0)
        assert not empty[:, : 8 * channels].any()


@pytest.mark.parametrize("people", (False, True))
@pytest.mark.parametrize("name", ("msra", "msra unbiased", "hourglass", "udp"))
def test_the_fused_loss_is_that_of_encoded_maps(kernels, device, name, people):
    codec = (EXACT | ROUNDED | {"udp": codecs.UDPHeatmap(INPUT, GRID)})[name]
    keypoints, visible = (v.float().to(device) for v in keypoints_of())
    if people:
        keypoints, visible = keypoints.unflatten(0, (1, 3)), visible.unflatten(0, (1, 3))
    pred = torch.rand(keypoints.shape[0], 17, *SIZE, device=device, requires_grad=True)
    extra = torch.rand(17, device=device)
    maps, weights = codec.encode(keypoints, visible)
    weights = (weights.amax(1) if people else weights) * extra
    expected = ((pred - maps) ** 2).mean((-2, -1)) * weights
    actual = codec.loss(pred, keypoints, visible, weight=extra, reduction="none")
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad(v.sum(), pred)[0] for v in (actual, expected)))


def test_half_precision_maps(device):
    maps, _ = ROUNDED["msra"].encode(torch.rand(1, 3, 2, device=device) * 100, dtype=torch.bfloat16)
    assert maps.dtype == torch.bfloat16


def test_flipped_maps_are_merged(kernels, device):
    codec = EXACT["msra unbiased"]
    keypoints = 40 + torch.rand(2, 4, 2, device=device) * 100
    maps, _ = codec.encode(keypoints)
    coords, _ = codec.decode(maps, flipped=maps.flip(-1), flip_pairs=[])
    torch.testing.assert_close(coords, keypoints, rtol=0, atol=0.05)


def test_integral_maps_add_up_to_one():
    keypoints, visible = keypoints_of(beyond=0.0)
    for parity in (None, "mmpose"):
        (_, maps), _ = codecs.IntegralRegressionLabel(INPUT, GRID, 2.0, parity=parity).encode(keypoints, visible)
        torch.testing.assert_close(maps.sum((-2, -1)), visible.to(maps), rtol=1e-4, atol=1e-5)
    drawn = reference.gaussian_heatmaps(keypoints / 4, 2.0, SIZE, visible=visible, center="rounded", truncate=3)
    expected = drawn / (drawn.sum((-2, -1), keepdim=True) + 1e-24)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: codecs.MSRAHeatmap((192, 0), GRID, 2.0), "MSRAHeatmap: input_size must be two positive"),
        (lambda: codecs.MSRAHeatmap(INPUT, (48, 64, 3), 2.0), "MSRAHeatmap: heatmap_size must be two positive"),
        (lambda: codecs.MSRAHeatmap(INPUT, GRID, 0.0), "MSRAHeatmap: sigma must be positive"),
        (lambda: codecs.MSRAHeatmap(INPUT, GRID, 2.0, parity="hrnet"), "parity must be None or one of mmpose"),
        (lambda: codecs.UDPHeatmap(INPUT, GRID, "both"), "heatmap_type must be one of gaussian, combined"),
        (lambda: codecs.UDPHeatmap(INPUT, GRID, "combined").loss(None, None), "encode combined maps"),
        (lambda: codecs.MegviiHeatmap(INPUT, GRID, 10), "kernel_size must be odd"),
        (lambda: codecs.CenterNetHeatmap(INPUT, GRID, 1.0), "min_overlap must be between 0 and 1"),
        (lambda: codecs.CenterNetHeatmap(INPUT, GRID).loss(), "sigma per person"),
        (lambda: codecs.SimCCLabel(INPUT, "hard"), "smoothing_type must be one of gaussian, standard"),
        (lambda: codecs.SimCCLabel(INPUT, sigma=(1.0, 0.0)), "sigma must be two positive"),
        (lambda: ROUNDED["msra"].encode(torch.rand(17, 2)), r"MSRAHeatmap: keypoints must be \(B, K, 2\)"),
        (lambda: ROUNDED["msra"].encode(torch.rand(1, 17, 2), torch.ones(17)), r"visible must be \(1, 17\)"),
        (lambda: ROUNDED["msra"].encode(torch.ones(1, 17, 2).long()), "keypoints must be a floating tensor"),
        (
            lambda: codecs.CenterNetHeatmap(INPUT, GRID).encode(torch.rand(1, 2, 3, 2), boxes=torch.rand(1, 2)),
            r"keypoints must be \(B, P, K, 2\) and boxes",
        ),
        (
            lambda: codecs.MSRAHeatmap(INPUT, GRID, 2.0, parity="mmpose").loss(None, torch.rand(1, 1, 2)),
            "loss is not defined with parity",
        ),
    ],
)
def test_bad_calls(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_split_ratio_without_bins_is_refused(kernels, device):
    with pytest.raises(RuntimeError, match="split_ratio must leave bins in both axes, got 1 and 0"):
        codecs.SimCCLabel((100, 10), simcc_split_ratio=0.01).encode(torch.ones(1, 1, 2, device=device))
