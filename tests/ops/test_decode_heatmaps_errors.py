"""What decode_heatmaps refuses, by name."""

import math

import pytest
import torch

from pypose_ops import decode_heatmaps

MAPS = torch.rand(2, 4, 6, 5)


@pytest.mark.parametrize(
    ("error", "match", "maps", "options"),
    [
        (ValueError, r"heatmaps must be \(B, K, H, W\), got shape \(4, 6, 5\)", MAPS[0], {}),
        (ValueError, "heatmaps must be float16, bfloat16, float32 or float64, got", MAPS.long(), {}),
        (ValueError, r"heatmaps must have H and W of at least 1, got shape \(2, 4, 0, 5\)", MAPS[:, :, :0], {}),
        (ValueError, "refine must be one of None, quarter, .*, offset, got 'taylor'", MAPS, {"refine": "taylor"}),
        (ValueError, "kernel_size must be odd and from 1 to 63, got 10", MAPS, {"kernel_size": 10}),
        (ValueError, "kernel_size must be odd and from 1 to 63, got -3", MAPS, {"kernel_size": -3}),
        (ValueError, "kernel_size must be odd and from 1 to 63, got 65", MAPS, {"kernel_size": 65}),
        (ValueError, "max_offset must not be negative or NaN, got -1", MAPS, {"max_offset": -1.0}),
        (ValueError, "max_offset must not be negative or NaN, got nan", MAPS, {"max_offset": math.nan}),
        (ValueError, r"transform must be \(2, 3\) or \(2, 2, 3\), got shape \(3, 2, 3\)", MAPS,
         {"transform": torch.ones(3, 2, 3)}),
        (ValueError, r"transform must be \(2, 3\) or \(2, 2, 3\), got shape \(3\)", MAPS,
         {"transform": torch.ones(3)}),
        (ValueError, "transform must be float32 or float64, got", MAPS, {"transform": torch.ones(2, 3).half()}),
        (ValueError, "flipped must have the dtype of heatmaps", MAPS, {"flipped": MAPS.double(), "flip_pairs": ()}),
        (ValueError, "flipped must have size 6 in dimension 2", MAPS, {"flipped": MAPS[:, :, 1:], "flip_pairs": ()}),
        (ValueError, "flip_pairs is required when flipped is given", MAPS, {"flipped": MAPS}),
        (ValueError, "flip_pairs and flip_shift need flipped", MAPS, {"flip_pairs": [(0, 1)]}),
        (ValueError, "flip_pairs and flip_shift need flipped", MAPS, {"flip_shift": True}),
        (ValueError, r"flip_pairs must be joints from 0 to 3, got 4 in \(0, 4\)", MAPS,
         {"flipped": MAPS, "flip_pairs": [(0, 4)]}),
        (ValueError, "flip_pairs must be joints from 0 to 3, got -1", MAPS,
         {"flipped": MAPS, "flip_pairs": [(-1, 2)]}),
        (ValueError, "flip_pairs must have each joint once", MAPS, {"flipped": MAPS, "flip_pairs": [(0, 1), (1, 2)]}),
        (ValueError, "flip_pairs must have each joint once", MAPS, {"flipped": MAPS, "flip_pairs": [(2, 2)]}),
        (ValueError, "flip_pairs must be pairs", MAPS, {"flipped": MAPS, "flip_pairs": [(0, 1, 2)]}),
        (ValueError, "flip_pairs must be pairs", MAPS, {"flipped": MAPS, "flip_pairs": [(0.0, 1.0)]}),
        (ValueError, "flip_pairs must be pairs", MAPS, {"flipped": MAPS, "flip_pairs": [0, 1]}),
    ],
)  # fmt: skip
def test_errors_name_operator_and_argument(device, error, match, maps, options):
    options = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in options.items()}
    with pytest.raises(error, match="decode_heatmaps: " + match):
        decode_heatmaps(maps.to(device), **options)


def test_the_operator_checks_its_permutation(device):
    maps = MAPS.to(device)
    for index in ([0, 1, 2], [0, 1, 2, 4], [0, 1, 2, -1], [0, 1, 2, 2], None):
        with pytest.raises(RuntimeError, match="decode_heatmaps: flip_index"):
            torch.ops.pypose_ops.decode_heatmaps.default(
                maps, 0, 0, 11, maps, index, False, None, None, 0.0, -1.0, False, False
            )


def test_more_joints_than_a_launch_carries(kernels, device):
    maps = torch.rand(1, 1030, 2, 2, device=device)
    assert decode_heatmaps(maps).coords.shape == (1, 1030, 2)
    if kernels == "cpu":
        assert decode_heatmaps(maps, flipped=maps, flip_pairs=()).coords.shape == (1, 1030, 2)
    else:
        with pytest.raises(ValueError, match="decode_heatmaps: heatmaps must have at most 1024 joints"):
            decode_heatmaps(maps, flipped=maps, flip_pairs=())
