"""offset_heatmaps under the contract of op_contract.py, and by hand."""

import large_inputs as large
import torch
from op_contract import Sample, check_op
from target_inputs import CROWD, GRAD, NAN, ONE, PAF_BATCH, SIZE, STRANGE, K, bad, points, rand, row

import pypose_ops
from pypose_ops import offset_heatmaps, reference

TestOffsetHeatmaps = check_op(
    offset_heatmaps,
    reference.offset_heatmaps,
    [
        Sample("plain", (ONE, 2.3, SIZE), grad=GRAD, traced=True),
        Sample("people", (CROWD, 2.3, SIZE), grad=GRAD, traced=True),
        Sample("last person", (CROWD, 2.3, SIZE), {"combine": "last"}, grad=GRAD),
        Sample("visible", (CROWD, 2.3, SIZE), {"visible": rand(2, 4, 3) > 0.5}, grad=GRAD, traced=True),
        Sample("last visible", (CROWD, 2.3, SIZE), {"visible": rand(2, 4, 3) > 0.5, "combine": "last"}, grad=GRAD),
        Sample("nobody visible", (ONE, 2.3, SIZE), {"visible": torch.zeros(2, 3)}, exact=True),
        Sample("two people in one place", (ONE[:, None].expand(2, 2, 3, 2), 2.3, SIZE)),
        Sample("strange keypoints", (STRANGE[:6], 2.3, SIZE), grad=GRAD),
        Sample("strange people", (STRANGE[None, :6], 2.3, SIZE)),
        Sample("one pixel", (points(2, 3, size=(1, 1)), 2.0, (1, 1)), grad=GRAD),
        Sample("one row", (points(2, 3, size=(1, 37)), 3.0, (1, 37)), grad=GRAD),
        Sample("real size", (points(2, 17, size=(64, 48)), 3.5, (64, 48))),
        Sample("no items", (points(0, 3), 2.0, SIZE), grad=GRAD, traced=True),
        Sample("no joints", (points(2, 0), 2.0, SIZE), grad=GRAD),
        Sample("no people", (points(2, 0, 3), 2.0, SIZE), exact=True),
    ],
    second_order="offset_heatmaps: double backward is not supported",
    bad=[
        bad("offset_heatmaps", "rank 2", r"keypoints must be \(B, K, 2\)", (K[0], 2.0, SIZE)),
        bad("offset_heatmaps", "integers", "keypoints must be float32 or float64", (K.long(), 2.0, SIZE)),
        bad("offset_heatmaps", "radius 0", "radius must be from 0.001", (K, 0.0, SIZE)),
        bad("offset_heatmaps", "radius NaN", "radius must be from 0.001", (K, NAN, SIZE)),
        bad("offset_heatmaps", "size", "size must be two", (K, 2.0, (9, 7, 3)), ValueError),
        bad(
            "offset_heatmaps",
            "combine",
            "combine must be one of nearest, last",
            (K, 2.0, SIZE),
            ValueError,
            combine="max",
        ),
        bad("offset_heatmaps", "visible", "visible must broadcast", (K, 2.0, SIZE), ValueError, visible=torch.ones(4)),
    ],
    batched=PAF_BATCH,
    dtype_argument="dtype",
)


def test_offsets_by_hand(device):
    keypoints = torch.tensor([[[[1.0, 1.0]], [[5.0, 1.5]]]], device=device)
    disc, x, y = offset_heatmaps(keypoints, 2.0, (3, 7))[0].cpu()
    torch.testing.assert_close(disc[1], row(1, 1, 1, 1, 1, 1, 1))
    torch.testing.assert_close(disc[0], row(1, 1, 1, 0, 1, 1, 1))
    torch.testing.assert_close(x[0], row(0.5, 0, -0.5, -1, 0.5, 0, -0.5))
    torch.testing.assert_close(y[0], row(0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 0.75))
    last = offset_heatmaps(keypoints, 2.0, (3, 7), combine="last")[0].cpu()
    torch.testing.assert_close(last[1, 0], row(2.5, 2, 1.5, 1, 0.5, 0, -0.5))


LARGE = large.Case(
    lambda k: pypose_ops.offset_heatmaps(k, 3.5, **large.draw),
    (large.keypoints,),
    3 * large.K * large.H * large.W,
    True,
)
