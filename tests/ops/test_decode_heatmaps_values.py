"""decode_heatmaps by hand-computed cases, against MMPose's formulas in numpy and OpenCV, and by its properties."""

import math

import codec_reference as peer
import pytest
import torch
from map_inputs import gaussians, spots

from pypose_ops import decode_heatmaps

NAN, INF = math.nan, math.inf
KERNEL_SIZES = (1, 3, 5, 7, 9, 11, 17, 63)


def random_centers(batch, joints, height, width, border=3):
    extent = torch.tensor([width, height], dtype=torch.float64) - 1 - 2 * border
    return border + torch.rand(batch, joints, 2, dtype=torch.float64) * extent


def decode_one(maps, device, **options):
    """(x, y, score) of the single map."""
    peaks = decode_heatmaps(maps.to(device), **options)
    assert peaks.coords.shape == (1, 1, 2) and peaks.scores.shape == (1, 1)
    return (*peaks.coords.flatten().tolist(), peaks.scores.item())


# ---- MMPose, from its formulas ----


@pytest.mark.parametrize("kernel_size", KERNEL_SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dark_is_mmpose(device, dtype, kernel_size):
    maps = gaussians(random_centers(2, 8, 40, 31, border=0), 2.0, 40, 31)
    maps = (maps + 0.02 * torch.rand_like(maps)).to(dtype)
    coords = decode_heatmaps(maps.to(device), kernel_size=kernel_size, compat="mmpose").coords.cpu()
    compared = 0
    for heatmap, (x, y) in zip(maps.double().flatten(0, 1).numpy(), coords.flatten(0, 1).tolist(), strict=True):
        want_x, want_y, is_maximum = peer.dark(heatmap, kernel_size)
        if is_maximum:
            assert (x, y) == pytest.approx((want_x, want_y), abs=1e-9 if dtype == torch.float64 else 2e-4)
            compared += 1
    assert compared >= 8


def test_quarter_is_mmpose(device):
    maps = torch.rand(20, 17, 5, 4)
    coords = decode_heatmaps(maps.to(device), refine="quarter").coords.cpu()
    want = [peer.quarter(heatmap) for heatmap in maps.flatten(0, 1).numpy()]
    assert coords.flatten(0, 1).tolist() == want


# ---- The peak ----


@pytest.mark.parametrize("refine", [None, "quarter", "dark"])
@pytest.mark.parametrize("value", [0.0, -0.0, -1.0, NAN, INF, -INF])
def test_no_positive_finite_pixel_is_no_peak(device, refine, value):
    maps = torch.full((1, 1, 9, 7), value)
    options = {"refine": refine, "transform": torch.ones(2, 3).to(device)}
    assert decode_one(maps, device, missing=-1.0, **options) == (-1, -1, 0)
    x, y, score = decode_one(maps, device, **options)
    assert math.isnan(x) and math.isnan(y) and score == 0


@pytest.mark.parametrize("bad", [NAN, -NAN, INF, -INF])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_pixels_that_are_not_finite_never_win(device, dtype, bad):
    maps = spots(30, 41, (0, 0, bad), (7, 12, bad), (8, 12, 0.25), (9, 12, bad), (40, 29, bad)).to(dtype)
    assert decode_one(maps, device, refine=None) == (8, 12, 0.25)


@pytest.mark.parametrize("size", [(4, 3), (16, 64), (61, 47), (200, 150)], ids=str)
def test_the_first_of_equals_wins(device, size):
    height, width = size
    places = torch.randint(height * width, (12, 3))
    for dtype in (torch.float16, torch.float32, torch.float64):
        maps = torch.full((12, 1, height * width), 0.5, dtype=dtype).scatter_(2, places[:, None], 1.0)
        first = places.amin(-1)
        coords = decode_heatmaps(maps.view(12, 1, *size).to(device), refine=None).coords.cpu()
        assert torch.equal(coords[:, 0], torch.stack([first % width, first // width], -1).to(coords.dtype))


@pytest.mark.parametrize("refine", [None, "quarter", "dark"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 2), (3, 3), (4, 5)], ids=str)
def test_small_maps_decode_to_their_pixel(device, refine, size):
    x, y = size[1] - 1, size[0] - 1
    assert decode_one(spots(*size, (x, y, 2.0)), device, refine=refine) == (x, y, 2.0)


@pytest.mark.parametrize("shape", [(0, 3, 8, 6), (2, 0, 8, 6), (0, 0, 1, 1)], ids=str)
def test_empty_calls(device, shape):
    maps = torch.zeros(shape, device=device)
    coords, scores = decode_heatmaps(maps, flipped=maps, flip_pairs=(), transform=maps.new_zeros(shape[0], 2, 3))
    assert coords.shape == (*shape[:2], 2) and scores.shape == shape[:2]


def test_smallest_and_largest_values(device):
    assert decode_one(spots(5, 5, (3, 1, 1e-42)), device) == (3, 1, pytest.approx(1e-42, abs=1e-44))
    assert decode_one(spots(5, 5, (3, 1, 3.4e38)), device, refine=None)[:2] == (3, 1)


# ---- quarter and dark by hand ----


@pytest.mark.parametrize(
    ("peak", "want"),
    [
        ((2, 2), (2.25, 2.25)),  # the inner region
        ((1, 3), (1.0, 3.25)),  # HRNet would refine neither axis
        ((3, 1), (3.25, 1.0)),
        ((0, 3), (0.0, 3.0)),
        ((3, 0), (3.0, 0.0)),
        ((5, 3), (5.0, 3.25)),
        ((3, 6), (3.25, 6.0)),
        ((1, 1), (1.0, 1.0)),
    ],
)
def test_quarter_border_rule(device, peak, want):
    slope = torch.arange(7.0)[:, None] + torch.arange(6.0)  # rises to the right and downwards
    maps = slope[None, None].clone()
    maps[0, 0, peak[1], peak[0]] = 100
    assert decode_one(maps, device, refine="quarter")[:2] == want


def test_quarter_stays_between_equal_and_unknown_neighbours(device):
    assert decode_one(spots(7, 7, (3, 3, 1), (2, 3, 0.5), (4, 3, 0.5)), device, refine="quarter")[:2] == (3, 3)
    assert decode_one(spots(7, 7, (3, 3, 1), (2, 3, NAN), (3, 2, 0.5)), device, refine="quarter")[:2] == (3, 2.75)


def test_dark_without_blur_is_exact_on_a_gaussian(device):
    # The logarithm is a quadratic and the differences are exact: the step lands on the centre, correlated or not.
    x = torch.arange(15, dtype=torch.float64) - 7.3
    y = torch.arange(12, dtype=torch.float64)[:, None] - 5.9
    maps = torch.exp(-(0.2 * x**2 + 0.1 * x * y + 0.15 * y**2))[None, None]
    assert decode_one(maps, device, kernel_size=1)[:2] == pytest.approx((7.3, 5.9), abs=1e-12)
    assert decode_one(maps.float(), device, kernel_size=1)[:2] == pytest.approx((7.3, 5.9), abs=1e-5)


@pytest.mark.parametrize(("sigma", "kernel_size"), [(1.5, 7), (2.0, 11), (3.0, 17)])
def test_dark_returns_what_was_drawn(device, sigma, kernel_size):
    centers = random_centers(4, 17, 64, 48, border=8)
    maps = gaussians(centers, sigma, 64, 48).float().to(device)
    error = (decode_heatmaps(maps, kernel_size=kernel_size).coords.cpu().double() - centers).norm(dim=-1)
    plain = (decode_heatmaps(maps, refine=None).coords.cpu().double() - centers).norm(dim=-1)
    assert error.max() < 4e-3 and plain.mean() > 0.3


@pytest.mark.parametrize(("x", "refined"), [(1, False), (2, True), (12, True), (13, False)])
def test_mmposes_dark_skips_two_pixels_along_the_border(device, x, refined):
    maps = gaussians(torch.tensor([[[x + 0.3, 7.0]]]), 2.0, 15, 15).float()
    assert (decode_one(maps, device, compat="mmpose")[0] != x) is refined
    assert (decode_one(maps.mT, device, compat="mmpose")[1] != x) is refined
    assert decode_one(maps, device)[:2] == pytest.approx((x + 0.3, 7.0), abs=4e-3)


@pytest.mark.parametrize("refine", ("dark", "dark_udp"))
@pytest.mark.parametrize(("sigma", "kernel_size"), [(1.5, 7), (2.0, 11), (3.0, 17)])
def test_gaussians_are_found_at_the_border(device, refine, sigma, kernel_size):
    centers = random_centers(2, 40, 24, 20, border=0)
    centers[0, :, 0] = torch.linspace(-0.7, 7, 40)
    centers[1, :, 1] = torch.linspace(16, 23.7, 40)
    maps = gaussians(centers, sigma, 24, 20).float().to(device)
    coords = decode_heatmaps(maps, refine=refine, kernel_size=kernel_size).coords.cpu().double()
    assert (coords - centers).abs().max() < 8e-3


def test_a_map_smaller_than_the_differences_is_not_refined(device):
    maps = gaussians(torch.tensor([[[1.3, 2.2]]]), 1.0, 5, 4).float()
    assert decode_one(maps, device)[:2] == (1, 2)
    x, y, _ = decode_one(maps, device, refine="dark_udp", kernel_size=3)
    assert (x, y) == pytest.approx((1.3, 2.2), abs=2e-3)


@pytest.mark.parametrize(("corner", "want"), [(2.1, (4, 4)), (0.2, (4 + 10 / 99, 4 + 1 / 99))])
def test_dark_steps_only_where_the_hessian_is_negative_definite(device, corner, want):
    # dx = 0.05, dxx = dyy = -0.5, dxy = (corner - 0.1) / 2: 1 makes a saddle, 0.05 does not. Then the step is
    # -H^-1 g = (0.5 * 0.05, 0.05 * 0.05) / (0.25 - 0.0025) = (0.10101, 0.010101).
    logs = torch.full((9, 9), -3.0, dtype=torch.float64)
    logs[4, 4], logs[4, 3], logs[4, 5], logs[3, 4], logs[5, 4] = 0, -0.3, -0.2, -0.3, -0.3
    logs[4, 2] = logs[4, 6] = logs[2, 4] = logs[6, 4] = -1
    logs[3, 3] = logs[5, 5] = -0.1
    logs[3, 5] = logs[5, 3] = -corner
    got = decode_one(logs.exp()[None, None], device, kernel_size=1, max_offset=None)
    assert got[:2] == pytest.approx(want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("refine", ["dark", "dark_udp"])
def test_ridges_have_no_top(device, refine, dtype):
    # The logarithm is a parabola across and straight along: H is singular, often negative definite by rounding.
    angles = torch.linspace(0.05, 3.1, 400, dtype=torch.float64)[:, None, None, None]
    x, y = torch.arange(-8, 9, dtype=torch.float64), torch.arange(-8, 9, dtype=torch.float64)[:, None]
    maps = torch.exp(-((x * angles.cos() + y * angles.sin() - 0.3) ** 2) / 8).to(dtype).to(device)
    options = {"refine": refine, "kernel_size": 1, "max_offset": None}
    peaks = decode_heatmaps(maps, **options, return_covariance=True)
    assert torch.equal(peaks.coords, decode_heatmaps(maps, refine=None).coords)
    assert peaks.covariance.isnan().all()


@pytest.mark.parametrize("refine", ["dark", "dark_udp"])
def test_wide_gaussians_have_a_top(device, refine):
    maps = gaussians(torch.tensor([[[15.7, 15.4]]], dtype=torch.float64), 50.0, 31, 31).float().to(device)
    peaks = decode_heatmaps(maps, refine=refine, kernel_size=1, max_offset=None, return_covariance=True)
    assert peaks.coords.flatten().tolist() == pytest.approx([15.7, 15.4], abs=0.02)
    want = 2500 * torch.eye(2)
    assert (peaks.covariance.cpu().view(2, 2) - want).abs().max() < 25


def test_constant_maps_decode_to_their_first_pixel(device):
    assert decode_one(torch.ones(1, 1, 9, 9), device) == (0, 0, 1)


@pytest.mark.parametrize(
    ("dx", "dy", "stays"), [(7, 7, True), (-7, 7, True), (0, -7, True), (8, 0, False), (0, 8, False)]
)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_dark_takes_no_step_beside_pixels_that_are_not_finite(device, bad, dx, dy, stays):
    maps = gaussians(torch.tensor([[[20.3, 16.4]]]), 2.0, 36, 40).float()
    clean = decode_one(maps, device)
    maps[0, 0, 16 + dy, 20 + dx] = bad
    assert decode_one(maps, device) == ((20, 16, clean[2]) if stays else clean)


@pytest.mark.parametrize("compat", [None, "mmpose"])
@pytest.mark.parametrize("refine", ["dark", "dark_udp"])
def test_no_covariance_beside_pixels_that_are_not_finite(device, refine, compat):
    """All pixels of the patch that is read, also those that the narrower differences of dark_udp do not need."""
    options = {"refine": refine, "compat": compat, "kernel_size": 3, "return_covariance": True}
    ring = [(dx, dy) for dx in range(-4, 5) for dy in range(-4, 5) if (dx, dy) != (0, 0)]
    maps = gaussians(torch.tensor([[[10.3, 9.4]]]), 2.0, 20, 21).float().repeat(len(ring), 1, 1, 1)
    clean = decode_heatmaps(maps[:1].to(device), **options)
    for i, (dx, dy) in enumerate(ring):
        maps[i, 0, 9 + dy, 10 + dx] = NAN
    peaks = decode_heatmaps(maps.to(device), **options)
    spoilt = torch.tensor([max(abs(dx), abs(dy)) <= 3 for dx, dy in ring], device=device)
    assert torch.equal(peaks.covariance[:, 0].isnan().all(-1).all(-1), spoilt)
    assert (peaks.coords[spoilt] == peaks.coords.new_tensor([10, 9])).all()
    assert torch.equal(peaks.covariance[~spoilt], clean.covariance.expand_as(peaks.covariance[~spoilt]))


def test_max_offset_scales_the_step_back(device):
    maps = gaussians(torch.tensor([[[7.3, 6.6]]]), 1.0, 15, 15)
    full = decode_one(maps, device, kernel_size=1, max_offset=None)
    assert full[:2] == pytest.approx((7.3, 6.6))
    # The step is (0.3, -0.4) from (7, 7): 0.5 long.
    assert decode_one(maps, device, kernel_size=1, max_offset=0.5001)[:2] == full[:2]
    assert decode_one(maps, device, kernel_size=1, max_offset=0.25)[:2] == pytest.approx((7.15, 6.8))
    assert decode_one(maps, device, kernel_size=1, max_offset=0)[:2] == (7, 7)
    assert decode_one(spots(7, 7, (3, 3, 1), (4, 3, 0.5)), device, refine="quarter", max_offset=0.125)[0] == 3.125


@pytest.mark.parametrize("max_offset", [1.0, 0.3])
def test_noise_never_moves_a_peak_further_than_max_offset(device, max_offset):
    maps = torch.randn(16, 17, 20, 18).to(device)
    for kernel_size in (1, 3, 11):
        peak = decode_heatmaps(maps, refine=None).coords
        coords = decode_heatmaps(maps, kernel_size=kernel_size, max_offset=max_offset).coords
        assert (coords - peak).norm(dim=-1).max() <= max_offset * (1 + 1e-5)


def test_dark_ignores_the_scale_and_follows_shifts(device):
    maps = gaussians(random_centers(2, 5, 32, 32, border=10), 2.0, 32, 32).float().to(device)
    coords = decode_heatmaps(maps).coords
    torch.testing.assert_close(decode_heatmaps(maps * 64).coords, coords, rtol=0, atol=1e-5)
    shifted = decode_heatmaps(maps.roll((2, -1), (-2, -1))).coords
    torch.testing.assert_close(shifted, coords + coords.new_tensor([-1, 2]), rtol=0, atol=1e-5)


# ---- Flip test, transform ----


def test_flip_merge_by_hand(device):
    maps = torch.tensor([[[[0.0, 0.2, 0.1, 0.0]], [[0.5, 0.0, 0.0, 0.0]]]])
    flipped = torch.tensor([[[[0.4, 0.0, 0.0, 0.6]], [[0.0, 0.9, 0.0, 0.0]]]])
    # Joint 0 takes the mirrored map of joint 1: 0 0 .9 0 (shifted 0 0 0 .9); joint 1 that of joint 0: .6 0 0 .4
    # (shifted .6 .6 0 0).
    coords, scores = decode_heatmaps(maps.to(device), refine=None, flipped=flipped.to(device), flip_pairs=[(0, 1)])
    assert coords.tolist() == [[[2, 0], [0, 0]]]
    assert scores.flatten().tolist() == pytest.approx([0.5, 0.55])
    coords, scores = decode_heatmaps(
        maps.to(device), refine=None, flipped=flipped.to(device), flip_pairs=[(0, 1)], flip_shift=True
    )
    assert coords.tolist() == [[[3, 0], [0, 0]]]
    assert scores.flatten().tolist() == pytest.approx([0.45, 0.55])


@pytest.mark.parametrize("refine", [None, "quarter", "dark"])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 7), (9, 10), (33, 47), (20, 600)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_merging_inside_is_merging_before(device, dtype, size, shift, refine):
    maps, flipped = torch.rand(2, 2, 5, *size).to(dtype).to(device)
    options = {"refine": refine, "kernel_size": 5}
    got = decode_heatmaps(maps, flipped=flipped, flip_pairs=((0, 3), (4, 1)), flip_shift=shift, **options)
    back = flipped[:, [3, 4, 2, 0, 1]].flip(-1)
    if shift:
        back[..., 1:] = back[..., :-1].clone()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    want = decode_heatmaps(0.5 * (maps.to(wide) + back.to(wide)), **options)
    assert torch.equal(got.scores, want.scores)
    torch.testing.assert_close(got.coords, want.coords, rtol=0, atol=1e-4)


def test_a_mirrored_image_decodes_mirrored(device):
    maps = gaussians(random_centers(3, 4, 24, 33, border=5), 2.0, 24, 33).float().to(device)
    coords, scores = decode_heatmaps(maps)
    mirrored = decode_heatmaps(maps.flip(-1))
    torch.testing.assert_close(32 - mirrored.coords[..., 0], coords[..., 0], rtol=0, atol=2e-5)
    same = decode_heatmaps(maps, flipped=maps.flip(-1), flip_pairs=())
    torch.testing.assert_close(same.coords, coords, rtol=0, atol=2e-5)
    assert torch.equal(same.scores, scores)


def test_transform(device):
    maps = torch.cat([spots(9, 8, (3, 5, 1.0)), spots(9, 8, (0, 0, 2.0)), spots(9, 8)]).to(device)
    each = torch.tensor([[[4, 0.5, 10], [-0.25, 5, 20]], [[1, 2, 3], [4, 5, 6]], [[1, 0, 0], [0, 1, 0]]])
    coords, scores = decode_heatmaps(maps, refine=None, transform=each.to(device), missing=-1.0)
    assert coords[:, 0].tolist() == [[24.5, 44.25], [3, 6], [-1, -1]]
    assert scores[:, 0].tolist() == [1, 2, 0]
    coords = decode_heatmaps(maps, refine=None, transform=each[0].double().to(device), missing=-1.0).coords
    assert coords.dtype == torch.float32
    assert coords[:, 0].tolist() == [[24.5, 44.25], [10, 20], [-1, -1]]


# ---- Tensors ----


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_decoded_in_float32(device, dtype):
    maps = gaussians(random_centers(3, 9, 31, 29), 2.0, 31, 29).to(dtype).to(device)
    got, want = decode_heatmaps(maps), decode_heatmaps(maps.float())
    assert got.coords.dtype == got.scores.dtype == torch.float32
    assert torch.equal(got.scores, want.scores)
    torch.testing.assert_close(got.coords, want.coords, rtol=0, atol=1e-5)


def test_thread_counts_give_the_same_bits():
    maps = torch.rand(16, 17, 64, 48)
    torch.set_num_threads(1)
    one = decode_heatmaps(maps)
    torch.set_num_threads(2)
    two = decode_heatmaps(maps)
    assert torch.equal(one.coords, two.coords) and torch.equal(one.scores, two.scores)


def test_results_have_no_gradient(device):
    maps = torch.rand(1, 2, 8, 8, device=device, requires_grad=True)
    peaks = decode_heatmaps(maps, flipped=maps, flip_pairs=(), transform=maps[0, :, :2, :3][0])
    assert not peaks.coords.requires_grad and not peaks.scores.requires_grad


def test_compiles_for_any_batch(device):
    torch._dynamo.reset()

    def decode(maps, flipped, transform):
        return decode_heatmaps(maps, flipped=flipped, flip_pairs=((0, 1),), flip_shift=True, transform=transform)

    compiled = torch.compile(decode, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (2, 5):
        maps, flipped = torch.rand(2, batch, 3, 12, 10, device=device)
        transform = torch.rand(batch, 2, 3, device=device)
        for got, want in zip(compiled(maps, flipped, transform), decode(maps, flipped, transform), strict=True):
            assert torch.equal(got, want)
