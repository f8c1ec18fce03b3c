"""gaussian_heatmaps under the contract of op_contract.py."""

import math

import large_inputs as large
import pytest
import torch
from contract_tools import keypoint_source, only_on
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import gaussian_heatmaps, reference

NAN, INF = math.nan, math.inf
SIZE = (9, 7)
rand, points = keypoint_source(2, SIZE)
ONE = points(2, 3)
CROWD = points(2, 4, 3)
GRAD = ("keypoints",)
BOTH = ("keypoints", "sigma")
STRANGE = torch.tensor(
    [
        [[NAN, 1], [2, NAN], [INF, 1], [2, -INF]],
        [[1e30, 2], [2, -1e30], [3e38, -3e38], [2.5, 3.25]],
        [[-100, 2], [2, 1e5], [1e-30, -1e-30], [-0.5, 8.5]],
    ]
)

SAMPLES = [
    Sample("plain", (ONE, 2.0, SIZE), grad=GRAD, traced=True),
    Sample("people", (CROWD, 1.5, SIZE), grad=GRAD, traced=True),
    Sample("sigma per joint", (ONE, rand(3) + 1, SIZE), grad=BOTH, traced=True),
    Sample("sigma per person", (CROWD, rand(2, 4, 1) + 1, SIZE), grad=BOTH),
    Sample("sigma per keypoint", (CROWD, rand(2, 4, 3) + 1, SIZE), grad=BOTH),
    Sample("sigma of no dimension", (ONE, torch.tensor(1.5), SIZE), grad=BOTH),
    Sample("two sigmas", (CROWD, rand(2, 4, 3, 2) + 1, SIZE), grad=BOTH, traced=True),
    Sample("two sigmas for all", (ONE, torch.tensor([1.0, 2.5]).reshape(1, 1, 2), SIZE), grad=BOTH),
    Sample("visible", (ONE, 2.0, SIZE), {"visible": rand(2, 3) > 0.5}, grad=GRAD, traced=True),
    Sample("visible as numbers", (CROWD, 2.0, SIZE), {"visible": torch.tensor([0, 1, 2])}, grad=GRAD),
    Sample("nobody visible", (ONE, 2.0, SIZE), {"visible": torch.zeros(2, 3)}, exact=True),
    Sample("rounded", (ONE, 2.0, SIZE), {"center": "rounded"}),
    Sample("rounded halves", (torch.tensor([[[0.5, 1.5], [-0.5, 2.5]]]), 2.0, SIZE), {"center": "rounded"}),
    Sample("msra", (CROWD, 2.0, SIZE), {"center": "rounded", "truncate": 3}),
    Sample("truncated", (ONE, 1.3, SIZE), {"truncate": 1.7}, grad=GRAD, traced=True),
    Sample("truncated people", (CROWD, rand(3) + 0.5, SIZE), {"truncate": 2.0, "combine": "sum"}, grad=BOTH),
    Sample("narrow window between pixels", (torch.tensor([[[2.5, 3.5]]]), 1.0, SIZE), {"truncate": 0.25}),
    Sample("sum", (CROWD, 1.5, SIZE), {"combine": "sum"}, grad=GRAD, traced=True),
    Sample("clipped sum", (CROWD, 2.5, SIZE), {"combine": "sum_clip"}, grad=GRAD),
    Sample("clipped sum of one", (ONE, 2.5, SIZE), {"combine": "sum_clip"}),
    Sample("unit sum", (ONE, 1.5, SIZE), {"normalize": "sum"}, grad=GRAD),
    Sample("unit sum, two sigmas", (CROWD, rand(2, 4, 3, 2) + 1, SIZE), {"normalize": "sum"}, grad=BOTH),
    Sample("unit sum, truncated", (ONE, 1.5, SIZE), {"normalize": "sum", "truncate": 2.3}, grad=GRAD),
    Sample("unit sum, summed", (CROWD, 1.5, SIZE), {"normalize": "sum", "combine": "sum"}, grad=GRAD),
    Sample("disc", (ONE, 2.3, SIZE), {"profile": "disc"}, traced=True),
    Sample("disc of people", (CROWD, rand(3) + 1.1, SIZE), {"profile": "disc", "combine": "sum"}),
    Sample("ellipse", (CROWD, rand(2, 4, 3, 2) + 1, SIZE), {"profile": "disc", "combine": "sum_clip"}),
    Sample("disc, rounded, unit sum", (ONE, 2.3, SIZE), {"profile": "disc", "center": "rounded", "normalize": "sum"}),
    Sample("disc that misses every pixel", (torch.tensor([[[2.5, 3.5]]]), 0.25, SIZE), {"profile": "disc"}, exact=True),
    Sample("two people in one place", (ONE[:, None].expand(2, 2, 3, 2), 2.0, SIZE)),
    Sample("tiny sigma", (ONE.round(), 1e-3, SIZE)),
    Sample("huge sigma", (ONE, 1e6, SIZE), grad=GRAD),
    Sample("strange keypoints", (STRANGE, 2.0, SIZE), grad=GRAD),
    Sample("strange keypoints, unit sum", (STRANGE, 2.0, SIZE), {"normalize": "sum"}),
    Sample("strange keypoints, truncated", (STRANGE, 2.0, SIZE), {"truncate": 3, "center": "rounded"}),
    Sample("strange discs", (STRANGE, 2.2, SIZE), {"profile": "disc", "normalize": "sum"}),
    Sample("strange sigmas", (points(1, 5), torch.tensor([NAN, INF, -1.0, 0.0, 1.5]), SIZE)),
    Sample("one pixel", (points(2, 3, size=(1, 1)), 2.0, (1, 1)), grad=GRAD),
    Sample("one row", (points(2, 3, size=(1, 33)), 2.0, (1, 33)), grad=GRAD),
    Sample("one column", (points(2, 3, size=(33, 1)), 2.0, (33, 1)), grad=GRAD),
    Sample("odd size", (points(1, 2, size=(37, 67)), 3.0, (37, 67)), grad=GRAD),
    Sample("real size", (points(4, 17, size=(64, 48)), 2.0, (64, 48))),
    Sample("real size, truncated", (points(4, 17, size=(64, 48)), 2.0, (64, 48)), {"truncate": 3.1}),
    Sample("no items", (points(0, 3), 2.0, SIZE), grad=GRAD, traced=True),
    Sample("no joints", (points(2, 0), 2.0, SIZE), grad=GRAD),
    Sample("no people", (points(2, 0, 3), 2.0, SIZE), grad=GRAD),
    Sample("no people, clipped sum", (points(2, 0, 3), 2.0, SIZE), {"combine": "sum_clip"}, exact=True),
]


def bad(name, match, *args, error=ValueError, **kwargs):
    defaults = (ONE.float(), 2.0, SIZE)
    return Bad(name, args + defaults[len(args) :], kwargs, error, "gaussian_heatmaps: " + match)


K = ONE.float()
BAD = [
    bad("rank 2", r"keypoints must be \(B, K, 2\)", K[0]),
    bad("rank 5", r"keypoints must be \(B, K, 2\)", K[None, None]),
    bad("last dimension 3", r"keypoints must be .*got shape \(2, 3, 3\)", torch.rand(2, 3, 3)),
    bad("integer keypoints", "keypoints must be float32 or float64", K.long()),
    bad("half keypoints", "keypoints must be float32 or float64", K.half()),
    bad("sigma 0", "sigma must be positive", K, 0.0),
    bad("negative sigma", "sigma must be positive", K, -1.0),
    bad("sigma NaN", "sigma must be positive", K, NAN),
    bad("infinite sigma", "sigma must be positive", K, INF),
    bad("sigma of another shape", r"sigma must broadcast to \(2, 3\)", K, torch.ones(5), error=ValueError),
    bad("sigma of another batch", r"sigma must broadcast to \(2, 3\)", K, torch.ones(4, 3), error=ValueError),
    bad("integer sigmas", "sigma must be float32 or float64", K, torch.ones(3).long()),
    bad("size 0", "size must be positive", K, 2.0, (0, 7), error=ValueError),
    bad("negative size", "size must be positive", K, 2.0, (9, -7), error=ValueError),
    bad("three sizes", "size must be two", K, 2.0, (9, 7, 3), error=ValueError),
    bad("size not integer", "size must be two", K, 2.0, (9.5, 7), error=ValueError),
    bad("visible of another shape", "visible must broadcast", visible=torch.ones(2, 4), error=ValueError),
    bad("visible not a tensor", "visible must be a tensor", visible=True, error=TypeError),
    bad("unknown profile", "profile must be one of gaussian, disc", profile="square", error=ValueError),
    bad("unknown center", "center must be one of exact, rounded", center="floor", error=ValueError),
    bad("unknown combine", "combine must be one of max, sum, sum_clip", combine="mean", error=ValueError),
    bad("unknown normalize", "normalize must be one of peak, sum", normalize="area", error=ValueError),
    bad("truncate 0", "truncate must be positive", truncate=0.0),
    bad("truncate NaN", "truncate must be positive", truncate=NAN),
    bad("integer maps", "dtype must be float16, bfloat16, float32 or float64", dtype=torch.int32),
]

TestGaussianHeatmaps = check_op(
    gaussian_heatmaps,
    reference.gaussian_heatmaps,
    SAMPLES,
    bad=BAD,
    batched=("keypoints", "sigma", "visible"),
    dtype_argument="dtype",
    second_order="gaussian_heatmaps: double backward is not supported",
)


@only_on("cuda")
def test_tensors_on_two_devices_are_refused(device):
    keypoints = K.to(device)
    with pytest.raises(ValueError, match="gaussian_heatmaps: visible must be on the same device as keypoints"):
        gaussian_heatmaps(keypoints, 2.0, SIZE, visible=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="gaussian_heatmaps: sigma must be on the same device as keypoints"):
        gaussian_heatmaps(keypoints, torch.ones(3), SIZE)


OPTIONS = [
    {},
    {"center": 1, "truncate": 2.0},
    {"combine": 2},
    {"profile": 1, "combine": 1, "normalize": 1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("keypoints, sigma", ((ONE, 1.5), (CROWD, 1.5)), ids=("one", "crowd"))
def test_a_scale_multiplies_the_maps_and_their_gradient(device, keypoints, sigma, options):
    """The codecs' factor, which the public function leaves at 1; a clipped sum is multiplied after it is clipped."""
    numbers = {"profile": 0, "center": 0, "truncate": None, "combine": 0, "normalize": 0} | options

    def draw(scale, dtype=torch.float64):
        where = keypoints.to(device).detach().requires_grad_(dtype == torch.float64)
        arguments = (where, None, sigma, None, *SIZE, *numbers.values(), scale, dtype)
        return where, torch.ops.pypose_ops.gaussian_heatmaps.default(*arguments)

    (plain_at, plain), (at, maps) = draw(1.0), draw(255.0)
    torch.testing.assert_close(maps, 255 * plain, rtol=1e-12, atol=1e-12)
    assert maps.max() > 100 * plain.max() > 0
    for dtype, rtol in ((torch.float16, 1e-3), (torch.bfloat16, 8e-3), (torch.float32, 1e-5)):
        torch.testing.assert_close(draw(255.0, dtype)[1].double(), maps.detach(), rtol=rtol, atol=1e-3)
    if not numbers["profile"]:
        weight = torch.rand(plain.shape, dtype=torch.float64, device=device)
        (plain * weight).sum().backward()
        (maps * weight).sum().backward()
        torch.testing.assert_close(at.grad, 255 * plain_at.grad)


@pytest.mark.parametrize("scale", (0.0, -1.0, NAN, INF))
def test_a_scale_that_is_not_positive_is_refused(device, scale):
    arguments = (K.to(device), None, 2.0, None, *SIZE, 0, 0, None, 0, 0, scale, torch.float32)
    with pytest.raises(RuntimeError, match="gaussian_heatmaps: scale must be positive and finite"):
        torch.ops.pypose_ops.gaussian_heatmaps.default(*arguments)


def test_scaled_heatmaps_trace(device):
    arguments = (K.to(device), None, 2.0, None, *SIZE, 0, 0, None, 0, 0, 255.0, torch.float32)
    torch.library.opcheck(torch.ops.pypose_ops.gaussian_heatmaps.default, arguments)


LARGE = large.Case(
    lambda k: pypose_ops.gaussian_heatmaps(k, 2.0, **large.draw), (large.keypoints,), large.K * large.H * large.W, True
)
