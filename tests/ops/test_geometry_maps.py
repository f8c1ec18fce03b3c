"""Coordinates between grids, and mirror images of keypoints and maps."""

import pytest
import torch

from pypose_ops import gaussian_heatmaps, offset_heatmaps, skeletons
from pypose_ops.geometry import ALIGNS, flip_heatmaps, flip_keypoints, scale_coordinates

PAIRS = ((0, 1), (2, 4))


@pytest.mark.parametrize(
    ("align", "expected"),
    [("index", (0.0, 2.0, 47.75)), ("center", (-0.375, 1.625, 47.375)), ("corners", (0.0, 8 * 47 / 191, 47.0))],
)
def test_three_rules_by_hand(align, expected):
    x = torch.tensor([0.0, 8.0, 191.0])
    scaled = scale_coordinates(torch.stack((x, x), -1), (192, 192), (48, 48), align=align)
    torch.testing.assert_close(scaled, torch.tensor(expected)[:, None].expand(3, 2))


@pytest.mark.parametrize("align", ALIGNS)
def test_each_rule_is_undone_by_swapping_the_sizes(align):
    keypoints = torch.randn(5, 7, 2, dtype=torch.float64) * 100
    there = scale_coordinates(keypoints, (256, 192), (61, 48), align=align)
    back = scale_coordinates(there, (61, 48), (256, 192), align=align)
    torch.testing.assert_close(back, keypoints, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("align", ("center", "corners"))
def test_mirroring_commutes_with_scaling(align):
    """Where the grids' middles lie on each other; with "index" they do not, which is what flip_shift is for."""
    keypoints = torch.rand(4, 5, 2, dtype=torch.float64) * 190
    one = scale_coordinates(flip_keypoints(keypoints, 192, PAIRS), (256, 192), (64, 48), align=align)
    other = flip_keypoints(scale_coordinates(keypoints, (256, 192), (64, 48), align=align), 48, PAIRS)
    torch.testing.assert_close(one, other)


def test_scaling_is_differentiable_and_keeps_the_dtype():
    keypoints = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: scale_coordinates(k, (9, 7), (5, 4), align="center"), keypoints)
    assert scale_coordinates(keypoints.float(), (9, 7), (5, 4), align="index").dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda k: scale_coordinates(k, (4, 4), (2, 2), align="corner"), "align must be one of index, center, corners"),
        (lambda k: scale_coordinates(k, (4, 4), (2, 1), align="corners"), "to_size must be .* at least 2"),
        (lambda k: scale_coordinates(k, (4, 0), (2, 1), align="index"), "from_size must be .* at least 1"),
        (lambda k: scale_coordinates(k[..., :1], (4, 4), (2, 2), align="index"), r"keypoints must be .* \(..., 2\)"),
        (lambda k: scale_coordinates(k.long(), (4, 4), (2, 2), align="index"), "floating"),
        (lambda k: flip_keypoints(k[0], 4, []), r"keypoints must be \(..., K, 2\)"),
        (lambda k: flip_keypoints(k, 4, [(0, 5)]), "flip_pairs must name joints from 0 to 4 once"),
        (lambda k: flip_keypoints(k, 4, [(0, 1), (1, 2)]), "flip_pairs must name joints from 0 to 4 once"),
        (lambda k: flip_heatmaps(k, []), r"heatmaps must be \(B, C, H, W\)"),
        (lambda k: flip_heatmaps(k[None, None], [], mode="udp"), "mode must be one of heatmap, offset"),
        (lambda k: flip_heatmaps(k[None, None], [], mode="offset"), "offset maps come in threes"),
    ],
)
def test_bad_calls(call, match):
    with pytest.raises(ValueError, match=match):
        call(torch.rand(5, 2))


def test_flipping_twice_is_nothing():
    keypoints, visible = torch.rand(3, 5, 2, dtype=torch.float64) * 30, torch.rand(3, 5)
    there = flip_keypoints(keypoints, 31, PAIRS, visible=visible)
    back = flip_keypoints(there[0], 31, PAIRS, visible=there[1])
    torch.testing.assert_close(back, (keypoints, visible))
    maps = torch.rand(2, 15, 4, 6)
    for mode in ("heatmap", "offset"):
        torch.testing.assert_close(flip_heatmaps(flip_heatmaps(maps, PAIRS, mode=mode), PAIRS, mode=mode), maps)


def test_maps_of_mirrored_keypoints_are_mirrored_maps(kernels, device):
    pairs = skeletons.COCO.flip_pairs
    keypoints = torch.rand(2, 17, 2, device=device) * 40
    mirrored = flip_keypoints(keypoints, 48, pairs)
    heatmaps = gaussian_heatmaps(mirrored, 2.0, (64, 48))
    torch.testing.assert_close(heatmaps, flip_heatmaps(gaussian_heatmaps(keypoints, 2.0, (64, 48)), pairs))
    offsets = offset_heatmaps(mirrored, 3.0, (64, 48))
    expected = flip_heatmaps(offset_heatmaps(keypoints, 3.0, (64, 48)), pairs, mode="offset")
    torch.testing.assert_close(offsets, expected)


def test_the_shift_makes_up_for_the_index_rule(kernels, device):
    """MSRA: in a mirrored image of 4 n pixels the map index becomes (4 n - 1 - x) / 4, not n - 1 - x / 4."""
    keypoints = torch.tensor([[[80.0, 40.0]]], device=device)
    small = [(64, 48), "index"]
    direct = scale_coordinates(keypoints, (256, 192), small[0], align="index")
    mirrored = scale_coordinates(flip_keypoints(keypoints, 192, []), (256, 192), small[0], align="index")
    off = gaussian_heatmaps(mirrored, 2.0, small[0])
    wanted = gaussian_heatmaps(direct, 2.0, small[0])
    plain, shifted = (flip_heatmaps(off, [], shift=shift) for shift in (False, True))
    assert plain[0, 0, 10].argmax() + 1 == shifted[0, 0, 10].argmax()
    assert (shifted - wanted).abs().max() < 0.4 * (plain - wanted).abs().max()
