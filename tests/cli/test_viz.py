"""Drawings: sizes, positions and colours."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from pypose_ops import viz
from pypose_ops._strokes import near_line
from pypose_ops.skeletons import COCO, FLIC


def black(width=160, height=120):
    return Image.new("RGB", (width, height))


def test_pose_is_drawn_where_the_keypoints_are():
    keypoints = torch.full((17, 2), float("nan"))
    keypoints[5], keypoints[7], keypoints[6] = torch.tensor([[40.0, 20], [40, 100], [120, 20]])
    drawn = np.asarray(viz.draw_pose(black(), keypoints, skeleton=COCO))
    assert drawn.shape == (120, 160, 3)
    assert tuple(drawn[60, 40]) == ImageColor.getrgb(viz.COLORS["left"])  # the left upper arm
    assert tuple(drawn[20, 80]) == ImageColor.getrgb(viz.COLORS["centre"])  # between the shoulders
    assert tuple(drawn[20, 120]) == ImageColor.getrgb(viz.COLORS["right"])  # the right shoulder itself
    ys, xs = np.nonzero(drawn.sum(-1))
    assert xs.min() > 30 and xs.max() < 130 and ys.min() > 10 and ys.max() < 110
    # The line is symmetric about pixel column 40: pixel centres are at integers.
    np.testing.assert_allclose(drawn[60, 30:40].astype(int), drawn[60, 50:40:-1].astype(int), atol=2)


def test_unsure_and_invisible_joints_are_left_out():
    keypoints = torch.rand(2, 11, 2) * 100
    original = np.asarray(black())
    assert np.array_equal(viz.draw_pose(black(), keypoints, torch.zeros(2, 11), FLIC), original)
    assert np.array_equal(viz.draw_pose(black(), keypoints * float("nan"), None, FLIC), original)
    assert np.array_equal(viz.draw_pose(black(), torch.empty(0, 11, 2), None, FLIC), original)
    assert not np.array_equal(viz.draw_pose(black(), keypoints, torch.ones(2, 11), FLIC), original)


def test_lines_follow_the_size_of_the_image():
    keypoints = torch.full((17, 2), float("nan"), dtype=torch.float64)
    keypoints[5], keypoints[7] = torch.tensor([[0.5, 0.1], [0.5, 0.9]], dtype=torch.float64)
    widths = []
    for side in (500, 2000):
        drawn = np.asarray(viz.draw_pose(black(side, side), keypoints * side))
        widths.append((drawn[side // 2, :, 0] > 128).sum())
    assert widths[1] == pytest.approx(4 * widths[0], abs=2)


@pytest.mark.parametrize("size", [(1, 1), (97, 61), (333, 7)])
def test_any_size_stays_exact(size):
    assert viz.draw_pose(black(*size), torch.zeros(17, 2)).size == size
    assert viz.heatmap_overlay(black(*size), np.eye(4)).size == size


def test_warp_keeps_pixel_centres():
    heatmap = np.zeros((6, 8))
    heatmap[4, 2] = 1
    assert np.array_equal(viz.warp_to_image(heatmap, (8, 6), [[1, 0, 0], [0, 1, 0]]), heatmap)
    # 10 px per map px, moved: map pixel (2, 4) is centred on image pixel (27, 55).
    warped = viz.warp_to_image(heatmap, (100, 80), [[10, 0, 7], [0, 10, 15]])
    assert np.unravel_index(warped.argmax(), warped.shape) == (55, 27)
    assert warped[0, 0] == 0
    # A map that covers the image ends where the image ends.
    assert viz.whole_image((8, 6), (80, 60)) @ [-0.5, -0.5, 1] == pytest.approx([-0.5, -0.5])
    assert viz.whole_image((8, 6), (80, 60)) @ [7.5, 5.5, 1] == pytest.approx([79.5, 59.5])


def test_overlay_is_brightest_at_the_peak():
    heatmap = torch.zeros(12, 16)
    heatmap[9, 3] = 0.5
    overlay = np.asarray(viz.heatmap_overlay(black(), heatmap)).sum(-1)
    y, x = np.unravel_index(overlay.argmax(), overlay.shape)
    assert (x, y) == (pytest.approx(35, abs=4), pytest.approx(95, abs=4))


def test_montage_has_a_tile_per_joint_and_one_for_all():
    heatmaps = torch.rand(11, 12, 16)
    one_row = viz.heatmap_montage(black(), heatmaps, columns=12, tile=80)
    assert one_row.width == 12 * 86 + 6
    several = viz.heatmap_montage(
        black(), heatmaps, names=FLIC.joints, keypoints=torch.rand(11, 2) * 100, scores=torch.rand(11), tile=80
    )
    assert several.width == 6 * 86 + 6 and several.height == 2 * (60 + 26) + 6


def test_nothing_and_nan_are_drawn_as_nothing():
    for value in (0.0, float("nan")):
        assert not np.asarray(viz.heatmap_overlay(black(), torch.full((4, 4), value))).any()
    viz.heatmap_montage(black(), torch.zeros(2, 4, 4))


def test_images_may_be_arrays_and_tensors():
    array = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    for image in (array, torch.from_numpy(array), Image.fromarray(array)):
        assert np.array_equal(viz.to_image(image), array)


@pytest.mark.parametrize("seed", range(40))
def test_pixels_near_a_line_are_all_of_them(seed):
    """Against the distances of every pixel; lines, discs and lines outside of the image."""
    rng = np.random.default_rng(seed)
    size, width = tuple(rng.integers(1, 60, 2).tolist()), rng.uniform(1, 12)
    a, b = rng.uniform(-30, 90, (2, 2)).round(rng.integers(3))
    a, b = {0: (a, a), 1: (a, np.array([a[0], b[1]])), 2: (a, np.array([b[0], a[1]]))}.get(seed % 8, (a, b))
    index, distance = near_line(size, a, b, width)
    ys, xs = np.divmod(np.arange(size[0] * size[1]), size[1])
    points, along = np.column_stack((xs, ys)) - a, b - a
    share = np.clip(points @ along / max(along @ along, 1e-9), 0, 1)
    expected = np.hypot(*(points - share[:, None] * along).T)
    assert len(set(index.tolist())) == len(index)
    np.testing.assert_allclose(distance, expected[index], atol=1e-4)
    missed = np.setdiff1d(np.arange(len(expected)), index)
    assert (expected[missed] > width / 2 + 1 - 1e-4).all() and (distance < width / 2 + 1).all()
