"""simcc_labels under the contract of op_contract.py, and by hand."""

import math

import large_inputs as large
import torch
from op_contract import Sample, check_op
from target_inputs import CROWD, GRAD, INF, NAN, SIZE, STRANGE, K, bad, points, rand, row

import pypose_ops
from pypose_ops import reference, simcc_labels

FULL = (24, 18)


INSIDE = points(2, 3, size=FULL)


EXACT = {"center": "exact"}


BOTH = ("keypoints", "sigma")


TestSimccLabels = check_op(
    simcc_labels,
    reference.simcc_labels,
    [
        Sample("plain", (INSIDE, 3.0, FULL), traced=True),
        Sample("exact", (INSIDE, 3.0, FULL), {"center": "exact"}, grad=GRAD, traced=True),
        Sample("two sigmas", (INSIDE, (4.9, 5.66), FULL), {"normalize": "density"}),
        Sample("fractional ratio", (INSIDE, 3.0, FULL), {"split_ratio": 1.3}),
        Sample("ratio below 1", (INSIDE, 3.0, FULL), {"split_ratio": 0.5, "center": "exact"}, grad=GRAD),
        Sample("exact density", (INSIDE, (2.5, 3.0), FULL), EXACT | {"normalize": "density"}, grad=GRAD),
        Sample("sigma per keypoint", (INSIDE, rand(2, 3) + 2, FULL), EXACT, grad=BOTH, traced=True),
        Sample("two sigmas per joint", (INSIDE, rand(3, 2) + 2, FULL), EXACT | {"normalize": "density"}, grad=BOTH),
        Sample("sigma of a rounded one", (INSIDE, rand(2, 3) + 2, FULL), {"normalize": "density"}, grad=("sigma",)),
        Sample("strange sigmas", (points(1, 5), torch.tensor([NAN, INF, -1.0, 0.0, 1.5]), SIZE), EXACT),
        Sample("sigmas of one hot", (INSIDE, rand(2, 3) + 2, FULL), {"profile": "one_hot"}),
        Sample("visible, exact", (INSIDE, 3.0, FULL), EXACT | {"visible": rand(2, 3) > 0.5}, grad=GRAD),
        Sample("strange keypoints, exact", (STRANGE[:6], 3.0, SIZE), EXACT, grad=GRAD),
        Sample("visible", (INSIDE, 3.0, FULL), {"visible": rand(2, 3) > 0.5}, traced=True),
        Sample("one hot", (INSIDE, 3.0, FULL), {"profile": "one_hot"}),
        Sample("smoothed", (INSIDE, 3.0, FULL), {"profile": "one_hot", "smoothing": 0.1}),
        Sample("smoothed away", (INSIDE, 3.0, FULL), {"profile": "one_hot", "smoothing": 1.0}),
        Sample(
            "one bin", (torch.tensor([[[0.2, 0.3], [0.7, 0.1]]]), 3.0, (1, 1)), {"split_ratio": 1, "profile": "one_hot"}
        ),
        Sample(
            "halves", (torch.tensor([[[0.25, 0.75], [1.25, 1.75]]]), 1.0, (4, 4)), {"profile": "one_hot"}, exact=True
        ),
        Sample("strange keypoints", (STRANGE[:6], 3.0, SIZE)),
        Sample("strange keypoints, one hot", (STRANGE[:6], 3.0, SIZE), {"profile": "one_hot", "smoothing": 0.2}),
        Sample("real size", (points(2, 17, size=(256, 192)), 6.0, (256, 192)), {"normalize": "density"}),
        Sample("no items", (points(0, 3), 2.0, SIZE), traced=True),
        Sample("no joints", (points(2, 0), 2.0, SIZE)),
    ],
    second_order="simcc_labels: double backward is not supported",
    bad=[
        bad("simcc_labels", "sigma shape", r"sigma must broadcast to \(2, 3\)", (K, torch.ones(5), SIZE), ValueError),
        bad("simcc_labels", "integer sigmas", "sigma must be float32 or float64", (K, torch.ones(3).long(), SIZE)),
        bad("simcc_labels", "people", r"keypoints must be \(B, K, 2\), got shape", (CROWD.float(), 2.0, SIZE)),
        bad("simcc_labels", "half", "keypoints must be float32 or float64", (K.half(), 2.0, SIZE)),
        bad("simcc_labels", "sigma 0", "sigma must be positive and finite", (K, (2.0, 0.0), SIZE)),
        bad("simcc_labels", "three sigmas", "sigma must be one number or two", (K, (2.0, 1.0, 3.0), SIZE), ValueError),
        bad("simcc_labels", "no bins", "size .* split_ratio must leave bins", (K, 2.0, SIZE), split_ratio=0.01),
        bad("simcc_labels", "ratio 0", "split_ratio must be positive", (K, 2.0, SIZE), ValueError, split_ratio=0),
        bad("simcc_labels", "ratio NaN", "split_ratio must be positive", (K, 2.0, SIZE), ValueError, split_ratio=NAN),
        bad("simcc_labels", "smoothing above 1", r"smoothing must be in \[0, 1\]", (K, 2.0, SIZE), smoothing=1.1),
        bad(
            "simcc_labels",
            "profile",
            "profile must be one of gaussian, one_hot",
            (K, 2.0, SIZE),
            ValueError,
            profile="x",
        ),
    ],
    batched=("keypoints", "sigma", "visible"),
    dtype_argument="dtype",
)


def test_simcc_by_hand(device):
    keypoints = torch.tensor([[[1.2, 0.6]]], device=device)
    x, y = simcc_labels(keypoints, 1.0, (2, 3))
    torch.testing.assert_close(x[0, 0].cpu(), torch.exp(-0.5 * (torch.arange(6.0) - 2) ** 2))  # round(2.4)
    torch.testing.assert_close(y[0, 0].cpu(), torch.exp(-0.5 * (torch.arange(4.0) - 1) ** 2))  # round(1.2)
    exact, _ = simcc_labels(keypoints, 1.0, (2, 3), center="exact", normalize="density")
    torch.testing.assert_close(
        exact[0, 0].cpu(), torch.exp(-0.5 * (torch.arange(6.0) - 2.4) ** 2) / math.sqrt(2 * math.pi)
    )
    hot, _ = simcc_labels(keypoints, 1.0, (2, 3), profile="one_hot", smoothing=0.5)
    torch.testing.assert_close(hot[0, 0].cpu(), row(0.1, 0.1, 0.5, 0.1, 0.1, 0.1))


LARGE = large.Case(
    lambda k: pypose_ops.simcc_labels(k, 6.0, (large.H, large.W), center="exact", dtype=large.HALF),
    (large.keypoints,),
    large.K * 2 * large.H,
    True,
)
