"""Where two libraries give different numbers for the same maps: each case computed by hand.

``TRAPS`` says where each is tested. Those of drawing and scoring are tested beside their operators; what is here is the
decoders' part.
"""

import importlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pypose_ops import codecs, decode_heatmaps, decode_simcc, find_peaks, metrics, soft_argmax

NAN, INF = math.nan, math.inf

# trap -> the tests that hold us to one side of it, by hand or against the library's formula
TRAPS = {
    "1 MSRA's window of 3 sigma = 4.5 is off centre": ["test_codecs.test_a_fractional_window_is_centred"],
    "2 rounding of halves": [
        "test_traps.test_halves_round_up_where_peers_differ",
        "test_codecs_peers.test_simcc_is_mmposes",
        "test_codecs_peers.test_megvii_is_mmposes",
    ],
    "3 a score of 0 decodes to -1, 0 or NaN": [
        "test_decode_heatmaps_real.test_steps_without_a_peak_are_minus_one_in_every_mode"
    ],
    "4 quarter steps at x = 1 or y = 1": ["test_decode_heatmaps_real.test_quarter_next_to_the_border"],
    "5 DARK's border of two pixels": [
        "test_decode_heatmaps_values.test_mmposes_dark_skips_two_pixels_along_the_border",
        "test_decode_heatmaps_values.test_gaussians_are_found_at_the_border",
    ],
    "6 maps of zeros": ["test_traps.test_maps_of_zeros"],
    "7 OpenCV's tables up to 9 taps": ["test_traps.test_the_blur_of_up_to_9_taps_is_opencvs_table"],
    "8 zeros, reflect-101 or reflect round the map": ["test_traps.test_what_is_outside_of_the_map"],
    "9 transformers' sigma of 0.8": ["test_traps.test_the_blur_of_hf_has_sigma_0_8_whatever_its_size"],
    "10 UDP's w / (w - 1)": [
        "test_traps.test_udp_decodes_what_it_encoded",
        "test_decode_heatmaps_real.test_udp_round_trip",
    ],
    "11 the radius of UDP's discs": ["test_decode_heatmaps_real.test_offset_radius_is_of_the_longer_side"],
    "12 column 0 of the shifted flip": ["test_decode_heatmaps_values.test_flip_merge_by_hand"],
    "13 PCK: < or <=, sides swapped, @0.1": [
        "test_metrics.test_the_threshold_itself_is_correct_unless_strict",
        "test_traps.test_pck_divides_x_and_y_alike",
        "test_metrics.test_pckh_at_a_tenth_is_a_tenth",
    ],
    "14 CenterNet's radius": [
        "test_codecs_peers.test_centernets_radius_keeps_the_overlap",
        "test_codecs_peers.test_centernet_radii_and_maps",
    ],
    "15 trt_pose's sigma, SLEAP's fourth power": ["test_part_affinity_fields.test_soft_profiles_by_hand"],
    "16 ties and plateaus": [
        "test_decode_heatmaps_values.test_the_first_of_equals_wins",
        "test_find_peaks.test_a_plateau_is_one_peak_at_its_first_pixel",
        "test_find_peaks.test_equal_pixels_within_the_radius_are_one_plateau",
    ],
    "17 strides, half precision, no items, no joints, tiny maps": [
        "test_decode_heatmaps_real.test_layouts_and_types",
        "test_decode_heatmaps_real.test_small_maps_decode_to_their_pixel",
        "test_decode_heatmaps_values.test_empty_calls",
    ],
    "18 NaN and infinity": [
        "test_decode_heatmaps_values.test_pixels_that_are_not_finite_never_win",
        "test_traps.test_bad_maps",
    ],
}


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_has_its_tests(trap):
    for name in TRAPS[trap]:
        module, function = name.split(".")
        assert callable(getattr(importlib.import_module(module), function)), name


def test_there_are_eighteen():
    assert [int(trap.split()[0]) for trap in TRAPS] == list(range(1, 19))


def hot(x, y, height=15, width=15):
    maps = torch.zeros(1, 1, height, width, dtype=torch.float64)
    maps[0, 0, y, x] = 1
    return maps


def variance(device, **options):
    """What the decoder takes the variance of the blurred hot pixel for, along x."""
    peaks = decode_heatmaps(hot(7, 7).to(device), return_covariance=True, **options)
    assert peaks.coords.flatten().tolist() == [7, 7]
    covariance = peaks.covariance[0, 0]
    assert covariance[0, 1].item() == pytest.approx(0, abs=1e-12)
    assert covariance[0, 0].item() == pytest.approx(covariance[1, 1].item())
    return covariance[0, 0].item()


@pytest.mark.parametrize(
    ("taps", "center", "two_away", "formula"),
    [(5, 6, 1, 1.1), (7, 0.28125, 0.109375, 1.4), (9, 60, 30, 1.7), (11, None, None, 2.0)],
)
def test_the_blur_of_up_to_9_taps_is_opencvs_table(device, taps, center, two_away, formula):
    """DARK's second difference over a blurred pixel is (ln f(2) - ln f(0)) / 2: the variance is 2 / ln(f(0) / f(2)).

    The tables are not the Gaussians of the formula, whose variance would be sigma squared; from 11 taps on they are.
    """
    expected = formula**2 if center is None else 2 / math.log(center / two_away)
    assert variance(device, refine="dark", kernel_size=taps) == pytest.approx(expected)
    if center is not None:
        assert abs(expected - formula**2) > 4e-3


def test_three_taps_are_a_quarter_a_half_a_quarter(device):
    """UDP-DARK's second difference is 2 (ln 1/4 - ln 1/2)."""
    assert variance(device, refine="dark_udp", kernel_size=3) == pytest.approx(1 / (2 * math.log(2)))


@pytest.mark.parametrize("kernel_size", [5, 11, 17])
def test_the_blur_of_hf_has_sigma_0_8_whatever_its_size(device, kernel_size):
    found = variance(device, refine="dark_udp", compat="hf", kernel_size=kernel_size)
    assert found == pytest.approx(0.8**2, rel=1e-5)  # 1.2e-7 is added to the Hessian
    assert variance(device, refine="dark_udp", kernel_size=11) == pytest.approx(2.0**2)


# Columns 0.5, 1, 0.5, 0, ... and one row: the blur of 3 taps at columns 0, 1, 2 is
#   zeros outside     0.5/2 + 1/4             = 1/2    1/2 + 1/8 + 1/8 = 3/4    1/4 + 1/4 = 1/2
#   reflect-101       0.5/2 + 1/4 + 1/4       = 3/4    3/4                      1/2
#   edge repeated     (0.5 + 0.5) e + 1 e, ...: with e = exp(-1 / 1.28) and all over 1 + 2 e
EDGE = math.exp(-1 / 1.28)
BLURRED = {
    "mmpose": (1 / 2, 3 / 4, 1 / 2),
    "mmpose0": (3 / 4, 3 / 4, 1 / 2),
    "hf": tuple(v / (1 + 2 * EDGE) for v in (0.5 + 1.5 * EDGE, 1 + EDGE, 0.5 + EDGE)),
}


@pytest.mark.parametrize("compat", BLURRED)
def test_what_is_outside_of_the_map(device, compat):
    maps = torch.zeros(1, 1, 15, 15, dtype=torch.float64)
    maps[0, 0, 7, :3] = torch.tensor([0.5, 1, 0.5])
    coords = decode_heatmaps(maps.to(device), refine="dark_udp", compat=compat, kernel_size=3).coords
    left, here, right = (math.log(v) for v in BLURRED[compat])
    step = -0.5 * (right - left) / (right - 2 * here + left)
    assert coords[0, 0].tolist() == pytest.approx([1 + step, 7], abs=1e-5)


def test_the_ways_outside_are_three():
    a, b, c = ((right / left) for left, _, right in BLURRED.values())
    assert a == 1 and b == pytest.approx(2 / 3) and b < c < a


def test_maps_of_zeros(device):
    """MMPose's DARK says -1, its UDP-DARK divides 0 by 0."""
    maps = torch.zeros(1, 2, 9, 8, device=device)
    for options in ({}, {"compat": "mmpose"}, {"refine": "dark_udp", "compat": "mmpose"}, {"refine": "centroid"}):
        coords, scores = decode_heatmaps(maps, missing=-1.0, **options)
        assert (coords == -1).all() and (scores == 0).all()
    combined = torch.zeros(1, 6, 9, 8, device=device)
    assert (decode_heatmaps(combined, refine="offset", radius=2.0, missing=-1.0).coords == -1).all()
    assert find_peaks(maps, threshold=0.0).counts.tolist() == [[0, 0]]
    assert (decode_simcc(maps[:, :, 0], maps[:, :, 1], refine="dark", missing=-1.0).coords == -1).all()
    assert soft_argmax(maps).tolist() == [[[3.5, 4.0]] * 2]  # every pixel weighs the same


def test_halves_round_up_where_peers_differ(device):
    """At 2.5 and 3.5 bins: int(x + 0.5) says 3 and 4, numpy's around 2 and 4, truncation 2 and 3."""
    keypoints = torch.tensor([[[2.5, 3.5]]], device=device)
    (x, y), _ = codecs.SimCCLabel((16, 16), sigma=1.0, simcc_split_ratio=1.0).encode(keypoints)
    assert (x.argmax(-1).item(), y.argmax(-1).item()) == (2, 4)
    maps, _ = codecs.MSRAHeatmap((16, 16), (16, 16), sigma=1).encode(keypoints)
    assert decode_heatmaps(maps, refine=None).coords.flatten().tolist() == [3, 4]


def test_udp_decodes_what_it_encoded(device):
    """150 of a width of 192 comes back as 150 * 192 / 191 = 150.785 from MMPose."""
    keypoints = torch.tensor([[[150.0, 100.0]]], device=device)
    for compat, expected in {None: 150.0, "mmpose": 150.785}.items():
        codec = codecs.UDPHeatmap((192, 256), (48, 64), compat=compat)
        maps, _ = codec.encode(keypoints)
        assert codec.decode(maps).coords[0, 0, 0].item() == pytest.approx(expected, abs=2e-3)


def test_pck_divides_x_and_y_alike():
    """MMPose's accuracy of heatmaps divides x by the height and y by the width."""
    target = torch.zeros(1, 2, 2)
    pred = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]])
    assert metrics.pck(pred, target, norm=20.0, threshold=0.2)["per_joint"].tolist() == [100, 100]
    assert metrics.pck(pred, target, norm=19.0, threshold=0.2)["per_joint"].tolist() == [0, 0]


# ---- Whatever the maps hold ------------------------------------------------------------------------------------------

STEPS = ("quarter", "parabola", "dark", "dark_udp", "centroid")
shapes = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 13), st.integers(1, 13))


@settings(max_examples=60, deadline=None)
@given(
    shape=shapes,
    seed=st.integers(0, 2**31),
    spread=st.sampled_from((1e-30, 1e-3, 1.0, 1e30)),
    dtype=st.sampled_from((torch.float16, torch.bfloat16, torch.float32, torch.float64)),
    kernel_size=st.sampled_from((1, 3, 7, 11)),
    max_offset=st.sampled_from((0.0, 0.25, 1.0, 3.0)),
    holes=st.booleans(),
)
def noise_stays_near(device, shape, seed, spread, dtype, kernel_size, max_offset, holes):
    generator = torch.Generator().manual_seed(seed)
    maps = (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
    if holes:
        kinds = torch.randint(8, shape, generator=generator)
        maps = maps.masked_fill(kinds == 0, NAN).masked_fill(kinds == 1, INF).masked_fill(kinds == 2, -INF)
    maps = maps.to(device)
    limit = max_offset * (1 + 1e-5) + 1e-5
    plain, scores = decode_heatmaps(maps, refine=None, missing=-1.0)
    several = find_peaks(maps, threshold=0.0, max_peaks=4, missing=-1.0)
    for refine in STEPS:
        options = {"refine": refine, "kernel_size": kernel_size, "max_offset": max_offset, "missing": -1.0}
        coords, same_scores = decode_heatmaps(maps, **options)
        assert torch.equal(same_scores, scores)
        assert ((coords - plain).norm(dim=-1) <= limit).all(), refine  # NaN is not
        assert (coords[scores == 0] == -1).all()
        found = find_peaks(maps, threshold=0.0, max_peaks=4, **options)
        assert torch.equal(found.counts, several.counts)
        assert ((found.coords - several.coords).norm(dim=-1) <= limit).all(), refine
    for compat, refine in (("mmpose", "dark"), ("mmpose", "dark_udp"), ("mmpose0", "dark_udp"), ("hf", "dark_udp")):
        coords = decode_heatmaps(maps, refine=refine, compat=compat, max_offset=max_offset, missing=-1.0).coords
        assert ((coords - plain).norm(dim=-1) <= limit).all(), (refine, compat)


def test_no_noise_moves_a_peak_further_than_max_offset(device):
    noise_stays_near(device)


def offset_maps(shape, device):
    return torch.randn(shape[0], 3 * shape[1], *shape[2:], device=device)


@pytest.mark.parametrize("max_offset", [0.0, 0.5, 2.0])
def test_offset_maps_of_noise(device, max_offset):
    maps = offset_maps((8, 5, 20, 18), device)
    options = {"refine": "offset", "radius": 4.0, "kernel_size": 3}
    plain = decode_heatmaps(maps, **options, max_offset=0.0).coords
    steps = (decode_heatmaps(maps, **options, max_offset=max_offset).coords - plain).norm(dim=-1)
    assert steps.max() <= max_offset * (1 + 1e-5) + 1e-5 and (max_offset == 0 or steps.max() > 0.99 * max_offset)


@pytest.mark.parametrize("max_offset", [0.0, 0.25, 1.0])
def test_simcc_of_noise(device, max_offset):
    x, y = torch.randn(8, 17, 96).to(device), torch.randn(8, 17, 128).to(device)
    plain = decode_simcc(x, y).coords
    for options in ({}, {"compat": "mmpose"}):
        coords = decode_simcc(x, y, refine="dark", sigma=1.0, max_offset=max_offset, **options).coords
        assert ((coords - plain).norm(dim=-1) <= max_offset * (1 + 1e-5) + 1e-5).all()


BAD_MAPS = {
    "zeros": torch.zeros(7, 6),
    "negative": -torch.rand(7, 6, generator=torch.Generator().manual_seed(0)) - 0.1,
    "NaN": torch.full((7, 6), NAN),
    "infinite": torch.full((7, 6), INF),
    "minus infinity": torch.full((7, 6), -INF),
}


@pytest.mark.parametrize("name", BAD_MAPS)
def test_bad_maps(device, name):
    maps = BAD_MAPS[name][None, None].to(device)
    for refine in (None, *STEPS):
        coords, scores = decode_heatmaps(maps, refine=refine, missing=-1.0)
        assert coords.tolist() == [[[-1, -1]]] and scores.tolist() == [[0]]
        assert find_peaks(maps, threshold=0.0, refine=refine).counts.tolist() == [[0]]


def test_a_constant_map(device):
    maps = torch.full((1, 1, 7, 6), 0.5).to(device)
    for refine in (None, "quarter", "parabola", "dark", "dark_udp"):
        assert decode_heatmaps(maps, refine=refine).coords.tolist() == [[[0, 0]]]
        assert find_peaks(maps, refine=refine).counts.tolist() == [[1]]


def test_more_places_than_pixels_and_a_threshold_above_all(device):
    maps = torch.rand(1, 1, 2, 3).to(device)
    peaks = find_peaks(maps, threshold=-1.0, max_peaks=50, missing=-1.0)
    assert peaks.coords.shape == (1, 1, 50, 2) and peaks.counts.item() == 1
    assert (peaks.coords[0, 0, 1:] == -1).all() and not peaks.scores[0, 0, 1:].any()
    assert find_peaks(maps, threshold=2.0).counts.item() == 0
