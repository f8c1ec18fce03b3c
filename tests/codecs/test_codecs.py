"""The codecs: encode then decode, weights, the fused loss, bad input."""

import math

import pytest
import torch
from codec_reference import GRID, INPUT, SIZE, keypoints_of

from pypose_ops import codecs, reference
from pypose_ops.geometry import scale_coordinates

NAN = math.nan


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
    "hourglass, compat": codecs.HourglassHeatmap(INPUT, GRID, 1.0, compat="hourglass"),
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


@pytest.mark.parametrize("use_dark", (False, True))
def test_simcc_in_three_dimensions_returns_the_joint(kernels, device, use_dark):
    """Half a bin in the plane and in depth; DARK is MMPose's, which is off where the blob meets the border."""
    codec = codecs.SimCC3DLabel((*INPUT, 192), use_dark=use_dark, z_range=2.0)
    points = torch.rand(5 if kernels == "simt" else 100, 4, 2, device=device)
    points = 40 + points * (torch.tensor(INPUT, device=device) - 80) if use_dark else points * 191
    depths = 2 * torch.rand(points.shape[:2], device=device) - 0.75
    depths[:, 0] = 0.25  # the root, to which depths are relative
    x, y, z, weights, roots = codec.encode(points, depths)
    assert (roots == 0.25).all() and weights.all()
    keypoints, scores, _ = codec.decode(x, y, z)
    assert (keypoints[..., :2] - points).abs().max() <= 0.25 + 1e-4 and (scores > 0).all()
    assert (keypoints[..., 2] - (depths - 0.25)).abs().max() <= 2.0 / 192 / 2 + 1e-4


def test_depths_outside_of_the_range_draw_nothing():
    codec = codecs.SimCC3DLabel((*INPUT, 288), z_range=1.0)
    labels = codec.encode(torch.full((1, 3, 2), 50.0), torch.tensor([[3.0, 3.5, 9.0]]))
    assert labels.weights.tolist() == [[1, 1, 0]] and not labels.z[0, 2].any() and labels.z[0, :2].amax() > 0
    assert codec.encode(torch.full((1, 3, 2), 50.0)).root_z.item() == pytest.approx(codec.root_z)
    with pytest.raises(ValueError, match="SimCC3DLabel: sigma must be one or three numbers"):
        codecs.SimCC3DLabel((*INPUT, 288), sigma=(1.0, 2.0))


@pytest.mark.parametrize("align", ("index", "center", "corners"))
@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_codecs_return_half_a_pixel(kernels, device, monkeypatch, name, align):
    codec = ROUNDED[name]
    monkeypatch.setattr(codec, "align", align)
    points = border_points(codec.heatmap_size, 0.0)[:: 8 if kernels == "simt" else 1]
    assert heatmap_error(codec, points.to(device)).max() <= 0.5 + 1e-5


def test_centernet_returns_half_a_pixel(kernels, device):
    codec = codecs.CenterNetHeatmap((512, 512), (128, 128))
    points = torch.rand(50, 2, dtype=torch.float64, device=device) * 127
    keypoints = at(codec, points)[:, None, None].float()
    maps, weights = codec.encode(keypoints, boxes=torch.full((50, 1, 2), 90.0, device=device))
    coords, _ = codec.decode(maps, refine=None)
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


def test_a_map_without_a_peak_decodes_to_nan(kernels, device):
    for codec in (EXACT["msra unbiased"], ROUNDED["msra"], ROUNDED["megvii"]):
        coords, scores = codec.decode(torch.zeros(1, 2, *SIZE, device=device))
        assert coords.isnan().all() and (scores == 0).all()


# The default is right -------------------------------------------------------------------------------------------------


def test_a_fractional_window_is_centred():
    """3 sigma = 4.5: MMPose puts the joint at pixel 2 onto pixel 3."""
    keypoints = torch.tensor([[[8.0, 8.0]]])
    right, wrong = (
        codecs.MSRAHeatmap(INPUT, GRID, 1.5, compat=compat).encode(keypoints)[0][0, 0] for compat in (None, "mmpose")
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


LABELS = {
    "simcc": codecs.SimCCLabel(INPUT),
    "simcc, exact": codecs.SimCCLabel(INPUT, center="exact"),
    "simcc, one hot": codecs.SimCCLabel(INPUT, "standard"),
    "integral": codecs.IntegralRegressionLabel(INPUT, GRID, 2.0),
    "regression": codecs.RegressionLabel(INPUT),
}


@pytest.mark.parametrize("name", [*EXACT, *ROUNDED, *LABELS])
def test_joints_that_are_missing_or_far_away_draw_nothing(kernels, device, name):
    """No visible joint, not finite, 1e30 away; an ordinary joint beside them is drawn as if it were alone."""
    codec = (EXACT | ROUNDED | LABELS)[name]
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
            continue  # coordinates are never masked
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
    for compat in (None, "mmpose"):
        (_, maps), _ = codecs.IntegralRegressionLabel(INPUT, GRID, 2.0, compat=compat).encode(keypoints, visible)
        torch.testing.assert_close(maps.sum((-2, -1)), visible.to(maps), rtol=1e-4, atol=1e-5)
    drawn = reference.gaussian_heatmaps(keypoints / 4, 2.0, SIZE, visible=visible, center="rounded", truncate=3)
    expected = drawn / (drawn.sum((-2, -1), keepdim=True) + 1e-24)
    torch.testing.assert_close(maps, expected.to(maps.dtype), rtol=1e-4, atol=1e-6)


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: codecs.MSRAHeatmap((192, 0), GRID, 2.0), "MSRAHeatmap: input_size must be two positive"),
        (lambda: codecs.MSRAHeatmap(INPUT, (48, 64, 3), 2.0), "MSRAHeatmap: heatmap_size must be two positive"),
        (lambda: codecs.MSRAHeatmap(INPUT, GRID, 0.0), "MSRAHeatmap: sigma must be positive"),
        (lambda: codecs.MSRAHeatmap(INPUT, GRID, 2.0, compat="hrnet"), "compat must be None or one of mmpose"),
        (lambda: codecs.UDPHeatmap(INPUT, GRID, "both"), "heatmap_type must be one of gaussian, combined"),
        (lambda: codecs.UDPHeatmap(INPUT, GRID, "combined").loss(None, None), "encode combined maps"),
        (lambda: codecs.MegviiHeatmap(INPUT, GRID, 10), "kernel_size must be odd"),
        (lambda: codecs.MegviiHeatmap(INPUT, GRID, (11, 11)), r"kernel_size must be odd and positive, got \(11, 11\)"),
        (lambda: codecs.CenterNetHeatmap(INPUT, GRID, 1.0), "min_overlap must be between 0 and 1"),
        (lambda: codecs.CenterNetHeatmap(INPUT, GRID).loss(), "sigma per person"),
        (lambda: codecs.SPR(INPUT, GRID, generate_keypoint_heatmaps=True), r"SPR: sigma must be positive .*, 0\.0\)"),
        (
            lambda: codecs.SimCC3DLabel((*INPUT, 8)).decode(*(torch.rand(1, 2, n) for n in (384, 512, 384))),
            r"SimCC3DLabel: z must be \(B, K, 16\), 8 pixels times",
        ),
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
            lambda: codecs.MSRAHeatmap(INPUT, GRID, 2.0, compat="mmpose").loss(None, torch.rand(1, 1, 2)),
            "loss is not defined with compat",
        ),
    ],
)
def test_bad_calls(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_split_ratio_without_bins_is_refused(kernels, device):
    with pytest.raises(ValueError, match="split_ratio must leave bins in both axes, got 1 and 0"):
        codecs.SimCCLabel((100, 10), simcc_split_ratio=0.01).encode(torch.ones(1, 1, 2, device=device))


SIZES = (192, 256), (48, 64)


@pytest.mark.parametrize(
    "codec",
    [
        codecs.MSRAHeatmap(*SIZES, 2), codecs.UDPHeatmap(*SIZES, sigma=2), codecs.HourglassHeatmap(*SIZES),
        codecs.UDPHeatmap(*SIZES, heatmap_type="combined"), codecs.MegviiHeatmap(*SIZES, 7),
        codecs.CPMHeatmap(*SIZES, 2),
        codecs.MegviiHeatmap(*SIZES, 7, compat="mmpose"), codecs.MSRAHeatmap(*SIZES, 2, compat="mmpose"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [(48, 64), (64, 47), (1, 48)])
def test_maps_of_another_size_are_refused(codec, size):
    name = type(codec).__name__
    with pytest.raises(
        ValueError, match=rf"{name}: heatmaps must be maps of 64 x 48 .*got shape .*{size[0]}, {size[1]}"
    ):
        codec.decode(torch.rand(2, 18, *size))
    if codec.compat is None and hasattr(codec, "loss") and getattr(codec, "heatmap_type", "") != "combined":
        with pytest.raises(ValueError, match=f"{name}: pred must be maps of 64 x 48"):
            codec.loss(torch.rand(2, 17, *size), torch.rand(2, 17, 2))


def test_labels_of_another_length_are_refused():
    codec = codecs.SimCCLabel((192, 256))
    with pytest.raises(
        ValueError, match=r"SimCCLabel: y must be \(B, K, 512\), 256 pixels times .*got shape \(1, 17, 500\)"
    ):
        codec.decode(torch.rand(1, 17, 384), torch.rand(1, 17, 500))


@pytest.mark.parametrize("kernel_size", range(3, 25, 2))
def test_megvii_draws_the_whole_kernel_and_decodes_it(kernel_size):
    codec = codecs.MegviiHeatmap(*SIZES, kernel_size)
    keypoints = 48 + 96 * torch.rand(1, 30, 2, generator=torch.Generator().manual_seed(0))
    maps, weights = codec.encode(keypoints)
    assert (weights == 1).all() and ((maps > 0).sum((-2, -1)) == kernel_size**2).all()
    torch.testing.assert_close(codec.decode(maps).coords, (torch.floor(keypoints / 4) + 0.5) * 4)


@pytest.mark.parametrize(
    "codec",
    [
        codecs.MegviiHeatmap(*SIZES, 7, compat="mmpose"), codecs.MSRAHeatmap(*SIZES, 1.5, compat="mmpose"),
        codecs.UDPHeatmap(*SIZES, compat="mmpose"),
    ],
)  # fmt: skip
def test_tables_are_not_kept_from_compilers(codec):
    """What is kept per device must be real tensors: a fake one would break the calls that follow."""
    keypoints = torch.rand(2, 17, 2) * 190
    visible = torch.ones(2, 17)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        codec.encode(mode.from_tensor(keypoints), mode.from_tensor(visible))
    compiled = torch.compile(codec.encode, backend="eager", fullgraph=True)(keypoints, visible)
    for actual, expected in zip(compiled, codec.encode(keypoints, visible), strict=True):
        torch.testing.assert_close(actual, expected)


AT_ONCE = {
    "msra": codecs.MSRAHeatmap((192, 256), (48, 64), 2.0),
    "unbiased": codecs.MSRAHeatmap((190, 250), (48, 64), 1.7, unbiased=True),  # another ratio for each axis
    "udp": codecs.UDPHeatmap((192, 256), (48, 64)),
    "megvii": codecs.MegviiHeatmap((192, 256), (48, 64), 11),
    "hourglass": codecs.HourglassHeatmap((256, 256), (64, 64)),
    "hourglass, compatible": codecs.HourglassHeatmap((256, 256), (64, 64), compat="hourglass"),
}


@pytest.mark.parametrize("name", AT_ONCE)
@pytest.mark.parametrize("people", ((), (3,)))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_encoding_at_once_equals_encoding_in_steps(name, people, dtype):
    """Bit for bit; what asks for a gradient goes through the steps."""
    codec = AT_ONCE[name]
    keypoints = (torch.rand(4, *people, 9, 2, dtype=dtype) * 1.4 - 0.2) * torch.tensor(codec.input_size)
    keypoints[0, ..., 1, 0], keypoints[0, ..., 2, 1], keypoints[1, ..., 3, :] = math.nan, math.inf, -0.5
    visible = 2 * torch.rand(keypoints.shape[:-1])
    visible[2, ..., 0], visible[2, ..., 1] = 0.5, math.nan
    seen = [None, visible, visible.double(), visible > 1, (visible * 2).nan_to_num().long(), visible.half()]
    for given in (*seen, visible.transpose(0, -1).contiguous().transpose(0, -1)):
        for map_dtype in (torch.float32, torch.float16):
            steps = codec.encode(keypoints.clone().requires_grad_(), given, dtype=map_dtype)
            for ours, expected in zip(codec.encode(keypoints, given, dtype=map_dtype), steps, strict=True):
                torch.testing.assert_close(ours, expected.detach(), rtol=0, atol=0)
    mapped = torch.func.vmap(lambda k: codec.encode(k, None)[0])(keypoints[:, None])
    torch.testing.assert_close(mapped[:, 0], codec.encode(keypoints)[0], rtol=0, atol=0)


def test_a_codec_that_draws_in_its_own_way_is_not_bypassed():
    class Twice(codecs.MSRAHeatmap):
        def draw(self, at, known, dtype):
            return 2 * super().draw(at, known, dtype)

    keypoints = 100 * torch.rand(2, 5, 2)
    maps = codecs.MSRAHeatmap((192, 256), (48, 64), 2.0).encode(keypoints)[0]
    assert torch.equal(Twice((192, 256), (48, 64), 2.0).encode(keypoints)[0], 2 * maps)


@pytest.mark.parametrize("name", AT_ONCE)
def test_arguments_that_are_no_tensors(name):
    codec, keypoints = AT_ONCE[name], torch.rand(2, 5, 2)
    for wrong in (keypoints.tolist(), keypoints.numpy(), None):
        with pytest.raises(TypeError, match=f"^{type(codec).__name__}: keypoints must be a tensor, got"):
            codec.encode(wrong)
    for wrong in ([[1] * 5] * 2, True):
        with pytest.raises(TypeError, match=f"^{type(codec).__name__}: visible must be a tensor, got"):
            codec.encode(keypoints, wrong)


@pytest.mark.parametrize("sigma", (2.0, 1.5))
@pytest.mark.parametrize("value", (math.nan, math.inf, -math.inf))
@pytest.mark.parametrize("codec", (codecs.MSRAHeatmap, codecs.UDPHeatmap))
def test_joints_that_are_not_finite_draw_nothing(codec, sigma, value):
    keypoints = torch.tensor([[[value, 40.0], [100.0, 120.0], [20.0, value]]])
    maps, weights = codec((192, 256), (48, 64), sigma=sigma, compat="mmpose").encode(keypoints)
    assert weights.tolist() == [[0.0, 1.0, 0.0]]
    assert not maps[0, [0, 2]].any() and maps[0, 1].max() > 0.9
