"""What scripts/fuzz.py has found, each as a test of its own; docs/reliability.md lists them."""

import math

import pytest
import torch

import pypose_ops
from pypose_ops import LocalPeaks, reference

NAN, INF = math.nan, math.inf


def same(name, *args, grad=None, **kwargs):
    """What operator and reference make of a call, compared; the operator's result (and gradient) returned."""
    results = []
    for module in (pypose_ops, reference):
        if grad is not None:
            args = [a.detach().requires_grad_() if i == grad else a for i, a in enumerate(args)]
        result = getattr(module, name)(*args, **kwargs)
        first = result[0] if isinstance(result, tuple) else result
        results.append((first.detach(), None if grad is None else torch.autograd.grad(first.sum(), args[grad])[0]))
    for actual, expected in zip(*results, strict=True):
        if actual is not None:
            torch.testing.assert_close(actual, expected.to(actual), equal_nan=True)
    return results[0]


# Crashes and hangs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", (INF, 1e308))
def test_grouping_ends_whatever_the_scores_are(device, score):
    """Infinite scores made infinite costs, in which the assignment ran past its arrays, mostly for ever."""
    coords = torch.arange(24, dtype=torch.float64).view(1, 3, 4, 2)
    scores = torch.full((1, 3, 4), score, dtype=torch.float64)
    scores[0, :, 1] = 0.5
    peaks = LocalPeaks(coords.to(device), scores.to(device), torch.full((1, 3), 4, device=device))
    tags = torch.arange(3 * 40 * 40, dtype=torch.float64, device=device).view(1, 3, 40, 40) / 5000
    people = pypose_ops.group_by_tags(peaks, tags)
    assert people.counts.item() > 0
    if score == INF:  # no peak: the finite one of every joint is left
        assert people.joint_scores.max() == 0.5
    table = torch.full((1, 2, 4, 4), 1e308, dtype=torch.float64, device=device)
    pypose_ops.group_people(peaks, table, [(0, 1), (1, 2)])


def test_a_loss_without_stages_has_a_gradient(device):
    """Divided by the number of stages: SIGFPE."""
    keypoints = torch.rand(2, 3, 2, device=device).requires_grad_()
    loss = pypose_ops.heatmap_mse_loss(torch.zeros(0, 2, 3, 6, 5, device=device), keypoints, 1.0, reduction="sum")
    loss.backward()
    assert loss.item() == 0 and not keypoints.grad.any()


# NaN out of finite input ----------------------------------------------------------------------------------------------


def test_the_loss_gradient_does_not_overflow_before_its_value_does(device):
    """Twice the weight was infinite, and infinity times 0 is NaN."""
    keypoints = torch.tensor([[[1.0, 2.0]]], device=device).requires_grad_()
    weight = torch.tensor([[3e38]], device=device)
    pred = torch.zeros(1, 1, 6, 6, device=device).requires_grad_()
    pypose_ops.heatmap_mse_loss(pred, keypoints, 1e-3, weight=weight, reduction="none").sum().backward()
    assert keypoints.grad.tolist() == [[[0, 0]]]
    assert pred.grad[0, 0, 2, 1].item() == pytest.approx(-2 * (3e38 / 36))


def test_a_loud_soft_argmax_finds_the_highest_pixel(device):
    """Times log2 e the temperature was infinite, and infinity times 0 is NaN: no pixel weighed anything."""
    maps = torch.zeros(1, 1, 4, 5, device=device).requires_grad_()
    with torch.no_grad():
        maps[0, 0, 2, 3], maps[0, 0, 0, 0] = 3e38, -3e38
    for temperature in (3e38, 1e300):
        assert same("soft_argmax", maps, temperature=temperature)[0].tolist() == [[[3, 2]]]
    level = torch.ones(1, 1, 1, 2, dtype=torch.float64, device=device)
    assert same("soft_argmax", level, temperature=1.7e308)[0].tolist() == [[[0.5, 0]]]


def test_the_mean_of_a_map_and_its_flipped_twin_does_not_overflow(device):
    """Their sum overflowed, and an infinite pixel is no peak."""
    maps = torch.zeros(1, 1, 5, 5, device=device)
    maps[0, 0, 2, 1] = 3e38
    options = {"refine": None, "flipped": maps.flip(-1), "flip_pairs": ()}
    coords, scores = pypose_ops.decode_heatmaps(maps, **options)
    assert coords.tolist() == [[[1, 2]]]
    assert scores.item() == pytest.approx(3e38)
    same("decode_heatmaps", maps, **options)


def test_an_infinite_density_has_a_gradient(device):
    """Of a subnormal sigma: infinity times the gradient 0 that arrives, and times the distance 0, was NaN."""
    keypoints = torch.tensor([[[2.0, 3.0]]], device=device).requires_grad_()
    sigma = torch.tensor([[1e-40]], device=device).requires_grad_()
    x, y = pypose_ops.simcc_labels(keypoints, sigma, (9, 7), center="exact", normalize="density", split_ratio=1)
    assert x[0, 0].tolist() == [0, 0, INF, 0, 0, 0, 0] and y[0, 0, 3] == INF
    for weight in (0.0, 1.0):
        found = torch.autograd.grad(x, (keypoints, sigma), torch.full_like(x, weight), retain_graph=True)
        assert found[0].tolist() == [[[0, 0]]]
        assert found[1].item() == (-INF if weight else 0)


# Silent wrong answers -------------------------------------------------------------------------------------------------


def test_a_box_with_nan_is_similar_to_nothing(device):
    """It had similarity 1 to all people."""
    pred = torch.rand(1, 2, 2, device=device)
    target = torch.full((2, 2, 2), NAN, device=device)
    boxes = torch.tensor([[0.0, 0, NAN, 1], [0, 0, 1, 1]], device=device)
    area = torch.ones(2, device=device)
    found, _ = same("oks", pred, target, area, sigmas=(0.1, 0.1), boxes=boxes)
    assert found.tolist() == [[0, 1]]


def test_of_people_as_far_as_one_another_the_first_has_the_offset(device):
    """In radii, squared and added by a fused instruction, the second was nearer by a bit."""
    people = torch.tensor([[[[2.0, 1.0]], [[1.0, 2.0]]]], device=device)
    maps, gradient = same("offset_heatmaps", people, 1.7324974796812045, (4, 7), dtype=torch.float64, grad=0)
    assert maps[0, 1, 3, 3].item() == pytest.approx(-1 / 1.7324974796812045)
    ties = [(x, x) for x in range(4)]
    assert all(maps[0, 1, y, x].item() == pytest.approx((2 - x) / 1.7324974796812045) for x, y in ties)
    assert gradient[0, 0, 0, 0] > gradient[0, 1, 0, 0] > 0


def test_the_height_of_a_blurred_map_is_that_inside_of_it(device):
    """MMPose's rescaling counted what the blur carries over the border, next to a peak at it."""
    maps = 2 * torch.rand(4, 8, 10, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) - 1
    maps[..., -1, 0] = 1.5
    options = {"refine": "dark_udp", "compat": "mmpose", "sigma": 2.2, "return_covariance": True}
    _, _, actual = pypose_ops.decode_heatmaps(maps.to(device), **options)
    _, _, expected = reference.decode_heatmaps(maps, **options)
    assert expected.isfinite().any()
    torch.testing.assert_close(actual.cpu(), expected, equal_nan=True)


@pytest.mark.parametrize("compat", (None, "mmpose0", "hf"))
def test_udp_takes_no_step_next_to_infinity(device, compat):
    """The outermost columns of its patch were not looked at, its outermost rows were."""
    maps = torch.zeros(1, 1, 15, 15)
    maps[0, 0, 6:9, 6:9] = 0.6
    maps[0, 0, 7, 7], maps[0, 0, 7, 8] = 0.9, 0.7
    options = {"refine": "dark_udp", "kernel_size": 5, "compat": compat}
    assert same("decode_heatmaps", maps.to(device), **options)[0][0, 0].tolist() != [7, 7]
    for y, x in ((7, 3), (7, 11), (3, 7), (11, 7), (3, 3)):
        spoilt = maps.clone()
        spoilt[0, 0, y, x] = INF
        assert same("decode_heatmaps", spoilt.to(device), **options)[0][0, 0].tolist() == [7, 7]
    spoilt[0, 0, 3, 3], spoilt[0, 0, 7, 2] = 0, INF  # out of reach
    assert same("decode_heatmaps", spoilt.to(device), **options)[0][0, 0].tolist() != [7, 7]


def test_a_step_may_be_longer_than_the_root_of_the_largest_number(device):
    """Its length overflowed although there was no limit, and it was dropped."""
    maps = torch.zeros(1, 3, 1, 1, device=device)
    maps[0, 0], maps[0, 1] = 1.0, 1e30
    options = {"refine": "offset", "radius": 6.0, "kernel_size": 3, "max_offset": None}
    assert same("decode_heatmaps", maps, **options)[0][0, 0, 0].item() == pytest.approx(6e30)


@pytest.mark.parametrize("center", ((0.0, -1e30), (14.4, -1e30), (-1e30, 5.0)), ids=str)
def test_the_pixels_of_a_huge_disc_are_counted(device, center):
    """Those on its edge, and those of a disc far away, were drawn and not counted: a sum of up to 14."""
    maps = pypose_ops.gaussian_heatmaps(
        torch.tensor([[center]], device=device), 1e30, (19, 14), profile="disc", normalize="sum"
    )
    assert maps.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("padding", ("zeros", "constant", "border", "reflect"))
@pytest.mark.parametrize("antialias", (False, True))
def test_a_transform_with_infinity_shows_the_fill(device, padding, antialias):
    """Infinity times 0 is NaN: some pixels were the border's and others were filled, by the order of the products."""
    images = torch.rand(1, 2, 5, 4, dtype=torch.float64, device=device).requires_grad_()
    transforms = torch.tensor([[[1.0, 0, 1], [0, 1, 1]]], dtype=torch.float64, device=device).repeat(6, 1, 1)
    for number in range(6):
        transforms[number].view(-1)[number] = -INF if number % 2 else INF
    options = {"fill": 0.5} if padding == "constant" else {}
    mask = torch.tensor([[-INF, -INF, INF, INF]], dtype=torch.float64, device=device).expand(6, 4)
    patches = pypose_ops.crop_patches(
        images, transforms, (3, 4), padding=padding, antialias=antialias, mask=mask, **options
    )
    assert (patches[:, :2] == options.get("fill", 0)).all() and (patches[:, 2] == 0).all()
    assert not torch.autograd.grad(patches.sum(), images)[0].any()
    same("crop_patches", images, transforms, (3, 4), padding=padding, antialias=antialias, grad=0, **options)


@pytest.mark.parametrize("profile", ["trt_pose", "sleap"])
def test_gradients_of_a_limb_that_ends_far_away(device, profile):
    """Towards its start, by x: the distance of pixels from the limb was a difference of nearly equal numbers."""
    gradients = []
    for dtype in (torch.float64, torch.float32):
        keypoints = torch.tensor([[[-1.56, 9.42], [65504.0, 13.29]]], dtype=torch.float64).to(device).requires_grad_()
        fields = pypose_ops.part_affinity_fields(keypoints, [(0, 1)], 1.0, (15, 9), profile=profile, dtype=dtype)
        weights = torch.linspace(-1, 2, fields.numel(), dtype=torch.float64).view_as(fields)
        gradients.append(torch.autograd.grad(fields, keypoints, weights.to(device, dtype))[0][0, 0].double())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=0)


# References and documentation that were wrong -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ("sparse", "fft"))
def test_a_weight_of_zero_can_learn(device, method):
    """The reference, and the FFT, took 0 for a weight that does not count, as negative ones."""
    unary = torch.ones(1, 1, 3, 3, device=device)
    prior = torch.zeros(1, 3, 3, device=device).requires_grad_()
    bias = torch.zeros(1, device=device).requires_grad_()
    out = pypose_ops.mrf_message_passing(unary, prior, bias + 1, [(0, 0)], method=method)
    assert torch.autograd.grad(out.sum(), prior)[0].min() > 0
    out = pypose_ops.mrf_message_passing(unary, prior + 1, bias, [(0, 0)], method=method)
    assert torch.autograd.grad(out.sum(), bias)[0].min() > 0
    same("mrf_message_passing", unary, prior, bias + 1, [(0, 0)], method=method, grad=1)


@pytest.mark.parametrize("padding", ("border", "reflect", "zeros"))
@pytest.mark.parametrize("shape", ((3, 4), (2, 2), (1, 1)), ids=str)
def test_slopes_at_the_last_pixel(device, padding, shape):
    """The reference's led to a pixel of 0 beyond it, which border and reflect do not have."""
    images = torch.rand(1, 2, *shape, dtype=torch.float64, device=device)
    whole = torch.tensor([[[1.0, 0, -2], [0, 1, -3]]], dtype=torch.float64, device=device)
    same("crop_patches", images, whole, (9, 7), padding=padding, grad=1)


def test_simcc_of_noise_without_a_positive_blurred_bin(device):
    """Blurred to negative values only, there is no height to scale back to: no step."""
    y = torch.full((1, 1, 19), -0.5)
    y[0, 0, 11] = 0.8
    x = torch.rand(1, 1, 18)
    same("decode_simcc", x.to(device), y.to(device), refine="dark", compat="mmpose", max_offset=1.8)


# Refusals that did not say what was refused ---------------------------------------------------------------------------

K, MAPS = torch.rand(2, 3, 2), torch.rand(2, 3, 6, 5)
PEAKS = LocalPeaks(torch.rand(1, 3, 4, 2), torch.rand(1, 3, 4), torch.full((1, 3), 4))
WRONG = {
    "limb_masks": [("keypoints", "text", [(0, 1)], 1.0, (6, 5))],
    "simcc_labels": [("keypoints", None, 2.0, (6, 5))],
    "gaussian_heatmaps": [("keypoints", [1.0], 2.0, (6, 5)), ("sigma", K, "one", (6, 5))],
    "heatmap_mse_loss": [("pred", None, K, 2.0), ("keypoints", MAPS, 3, 2.0)],
    "decode_heatmaps": [("heatmaps", None)],
    "find_peaks": [("heatmaps", 1.0)],
    "soft_argmax": [("heatmaps", None)],
    "decode_simcc": [("x", None, K), ("y", K, "text")],
    "box_vote": [("boxes", None, K, (6, 5))],
    "crop_patches": [("transforms", MAPS, 3, (6, 5))],
    "mrf_message_passing": [("unary", 1.0, K, K, [(0, 0)]), ("prior", MAPS, None, K, [(0, 0)])],
    "oks": [("pred", None, K, K[..., 0])],
    "oks_nms": [("scores", K, "text", K[..., 0])],
    "score_limbs": [("limbs", MAPS, PEAKS, [("a", "b")]), ("peaks.coords", MAPS, 3, [(0, 1)])],
    "group_people": [
        ("limb_scores", PEAKS, None, [(0, 1)]),
        ("peaks.counts", PEAKS._replace(counts=torch.ones(1, 3)), torch.rand(1, 1, 4, 4), [(0, 1)]),
        ("peaks.scores", PEAKS._replace(scores=torch.ones(1, 3, 1)), torch.rand(1, 1, 4, 4), [(0, 1)]),
    ],
    "group_by_tags": [("tags", PEAKS, None)],
}


def written(value):
    """A test's name, the same in every process: random tensors are not."""
    return value[0] if isinstance(value, tuple) and isinstance(value[0], str) else str(value).split("tensor")[0]


@pytest.mark.parametrize("name, wrong", [(name, row) for name, rows in WRONG.items() for row in rows], ids=written)
def test_an_argument_of_the_wrong_kind_is_named(name, wrong):
    argument, *args = wrong
    with pytest.raises((TypeError, ValueError), match=f"^{name}: {argument} must be"):
        getattr(pypose_ops, name)(*args)


@pytest.mark.parametrize(
    "name, args, options",
    (
        ("soft_argmax", (MAPS,), {"window": torch.ones(3)}),
        ("group_by_tags", (PEAKS, MAPS[:1]), {"joint_order": 3.5}),
        ("group_people", (PEAKS, torch.rand(1, 1, 4, 4), [(0, 1)]), {"max_people": 1 << 62}),
        ("mrf_message_passing", (MAPS, torch.rand(1, 3, 3), torch.ones(1), [(0, 0)]), {"num_targets": 1 << 40}),
        ("mrf_message_passing", (MAPS, torch.rand(1, 3, 3), torch.ones(1), [(0, 0)]), {"prior_index": 7}),
        ("decode_simcc", (K, K), {"sigma": INF}),
        ("oks", (K, K, K[..., 0]), {"sigmas": None}),
        ("crop_patches", (MAPS, torch.rand(2, 2, 3), (6, 5)), {"mean": []}),
        ("simcc_labels", (K, 2.0, (6, 5)), {"split_ratio": 1e308}),
        ("limb_masks", (K, [(0, 1)], 1.0, (6, 5)), {"visible": torch.ones(2, 3, dtype=torch.complex64)}),
    ),
    ids=written,
)
def test_an_option_of_the_wrong_kind_is_named(name, args, options):
    (argument,) = options
    with pytest.raises((TypeError, ValueError), match=f"^{name}: .*({argument}|size)"):
        getattr(pypose_ops, name)(*args, **options)


@pytest.mark.parametrize("options", ({"kernel_size": 3.5}, {"kernel_size": 1 << 70}, {"flip_shift": "x"}), ids=str)
def test_offsets_are_refused_by_the_public_name(options):
    flips = {"flipped": MAPS, "flip_pairs": ()}
    with pytest.raises(TypeError, match=f"decode_heatmaps.*{next(iter(options))}") as refused:
        pypose_ops.decode_heatmaps(MAPS, refine="offset", radius=2.0, **(flips | options))
    assert "_decode_offsets" not in str(refused.value)


@pytest.mark.parametrize("name", ("find_peaks", "decode_heatmaps"))
def test_a_sigma_that_only_reads_as_a_number(name):
    """It passed the check and then failed a comparison, which named nothing."""
    call = getattr(pypose_ops, name)
    for got, want in zip(call(MAPS, refine="dark", sigma="1.5"), call(MAPS, refine="dark", sigma=1.5), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
