"""part_affinity_fields, limb_masks, offset_heatmaps and simcc_labels under the contract, and by hand."""

import math

import pytest
import torch
from contract_tools import only_on
from op_contract import Bad, Sample, check_op

from pypose_ops import limb_masks, offset_heatmaps, part_affinity_fields, reference, simcc_labels, skeletons

NAN, INF = math.nan, math.inf
generator = torch.Generator().manual_seed(4)


def rand(*shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def points(*shape, size=(9, 7)):
    """Keypoints in and a little outside of the map."""
    return rand(*shape, 2) * torch.tensor([size[1] + 3.0, size[0] + 3.0]) - 2


SIZE = (9, 7)
ONE = points(2, 3)
CROWD = points(2, 4, 3)
LIMBS = [(0, 1), (2, 1), (0, 2)]
# The first limb's ends: not finite, far out, together; the second limb is ordinary or ends there.
STRANGE = torch.tensor(
    [
        [[NAN, 1], [2, 3], [4, 5]],
        [[2, INF], [2, 3], [4.25, 5.5]],
        [[1e30, 2], [2, 3], [4, -5]],
        [[-1e30, 1e30], [3e38, -3e38], [4, 5]],
        [[2.5, 3.25], [2.5, 3.25], [-4, 5]],
        [[2.5, 3.25], [2.5, 3.2500001], [4, 5]],
        [[1e4, 3.0], [-1e4, 3.0], [0, 0]],
    ]
)
PAF_BATCH = ("keypoints", "visible")
GRAD = ("keypoints",)
SUMMED = {"profile": "trt_pose", "combine": "sum"}


def bad(op, name, match, args, error=RuntimeError, **kwargs):
    return Bad(name, args, kwargs, error, f"{op}: {match}")


K = ONE.float()
LIMB_BAD = [
    ("rank 2", r"keypoints must be \(B, K, 2\)", (K[0], LIMBS, 2.0, SIZE), RuntimeError),
    ("half keypoints", "keypoints must be float32 or float64", (K.half(), LIMBS, 2.0, SIZE), RuntimeError),
    ("a joint too many", "limbs must be joints from 0 to 2, got 3", (K, [(0, 3)], 2.0, SIZE), RuntimeError),
    ("a negative joint", "limbs must be joints from 0 to 2, got -1", (K, [(0, 1), (-1, 2)], 2.0, SIZE), RuntimeError),
    ("a triple", "limbs must be pairs", (K, [(0, 1, 2)], 2.0, SIZE), ValueError),
    ("no pairs", "limbs must be pairs", (K, [0, 1], 2.0, SIZE), ValueError),
    ("too many limbs", "limbs must be at most 256 pairs", (K, [(0, 1)] * 257, 2.0, SIZE), RuntimeError),
    ("width 0", "width must be positive", (K, LIMBS, 0.0, SIZE), RuntimeError),
    ("negative width", "width must be positive", (K, LIMBS, -1.0, SIZE), RuntimeError),
    ("width NaN", "width must be positive", (K, LIMBS, NAN, SIZE), RuntimeError),
    ("endless width", "width must be positive", (K, LIMBS, INF, SIZE), RuntimeError),
    ("size 0", "size must be positive", (K, LIMBS, 2.0, (0, 7)), ValueError),
]
BIG = points(2, 17, size=(56, 56))
BIG_CROWD = points(1, 3, 17, size=(40, 64))


def limb_samples(grad=(), **kwargs):
    return [
        Sample("plain", (ONE, LIMBS, 1.5, SIZE), kwargs, grad=grad, traced=True),
        Sample("people", (CROWD, LIMBS, 1.3, SIZE), kwargs, grad=grad, traced=True),
        Sample("visible", (ONE, LIMBS, 1.5, SIZE), {"visible": rand(2, 3) > 0.4} | kwargs, grad=grad, traced=True),
        Sample(
            "visible people as numbers",
            (CROWD, LIMBS, 1.5, SIZE),
            {"visible": torch.tensor([0, 1, 2])} | kwargs,
            grad=grad,
        ),
        Sample("nobody visible", (CROWD, LIMBS, 1.5, SIZE), {"visible": torch.zeros(2, 4, 3)} | kwargs, exact=True),
        Sample("one limb, twice", (ONE, [(0, 1), (0, 1)], 1.5, SIZE), kwargs, grad=grad),
        Sample("no limbs", (ONE, [], 1.5, SIZE), kwargs, grad=grad),
        Sample("strange keypoints", (STRANGE, LIMBS[:2], 1.1, SIZE), kwargs),
        Sample("strange people", (STRANGE[None], LIMBS[:2], 1.1, SIZE), kwargs),
        Sample("thin", (ONE, LIMBS, 0.05, SIZE), kwargs),
        Sample("one pixel", (points(2, 3, size=(1, 1)), LIMBS, 1.5, (1, 1)), kwargs, grad=grad),
        Sample("one row", (points(2, 3, size=(1, 37)), LIMBS, 1.5, (1, 37)), kwargs, grad=grad),
        Sample("coco", (BIG, skeletons.COCO.edges, 2.0, (56, 56)), kwargs),
        Sample("coco people", (BIG_CROWD, skeletons.COCO.edges, 3.1, (40, 64)), kwargs),
        Sample("no items", (points(0, 3), LIMBS, 1.5, SIZE), kwargs, grad=grad, traced=True),
        Sample("no people", (points(2, 0, 3), LIMBS, 1.5, SIZE), kwargs, grad=grad, exact=True),
    ]


def named(prefix, samples):
    return [Sample(**(vars(s) | {"name": f"{prefix}, {s.name}", "traced": False})) for s in samples]


TestPartAffinityFields = check_op(
    part_affinity_fields,
    reference.part_affinity_fields,
    limb_samples(GRAD)
    + named("openpose", limb_samples(GRAD, profile="openpose"))
    + named("trt_pose", limb_samples(GRAD, profile="trt_pose", combine="sum"))
    + named("sleap", limb_samples(GRAD, profile="sleap", combine="sum"))
    + [
        Sample("band, summed", (CROWD, LIMBS, 1.5, SIZE), {"combine": "sum"}, grad=GRAD),
        Sample("trt_pose, mean", (CROWD, LIMBS, 1.5, SIZE), {"profile": "trt_pose"}, grad=GRAD),
        Sample("sleap, mean", (CROWD, LIMBS, 2.5, SIZE), {"profile": "sleap"}, grad=GRAD),
        Sample("short limbs, sleap", (points(2, 4, 3) * 0.05 + 3, LIMBS, 1.5, SIZE), {"profile": "sleap"}, grad=GRAD),
        Sample("strange keypoints, trt_pose, gradient", (STRANGE[:4], LIMBS, 2.0, SIZE), SUMMED, grad=GRAD),
        Sample("wide", (CROWD, LIMBS, 1e5, SIZE)),
    ],
    second_order="part_affinity_fields: double backward is not supported",
    bad=[bad("part_affinity_fields", *row) for row in LIMB_BAD]
    + [
        bad(
            "part_affinity_fields",
            "profile",
            "profile must be one of band",
            (K, LIMBS, 2.0, SIZE),
            ValueError,
            profile="x",
        ),
        bad(
            "part_affinity_fields",
            "combine",
            "combine must be one of mean",
            (K, LIMBS, 2.0, SIZE),
            ValueError,
            combine="max",
        ),
        bad("part_affinity_fields", "dtype", "dtype must be float16", (K, LIMBS, 2.0, SIZE), dtype=torch.int32),
    ],
    batched=PAF_BATCH,
    dtype_argument="dtype",
)
TestLimbMasks = check_op(
    limb_masks,
    reference.limb_masks,
    limb_samples(),
    bad=[bad("limb_masks", *row) for row in LIMB_BAD],
    batched=PAF_BATCH,
    dtype_argument="dtype",
)
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
PICTURE = (24, 18)
INSIDE = points(2, 3, size=PICTURE)
EXACT = {"center": "exact"}
BOTH = ("keypoints", "sigma")
TestSimccLabels = check_op(
    simcc_labels,
    reference.simcc_labels,
    [
        Sample("plain", (INSIDE, 3.0, PICTURE), traced=True),
        Sample("exact", (INSIDE, 3.0, PICTURE), {"center": "exact"}, grad=GRAD, traced=True),
        Sample("two sigmas", (INSIDE, (4.9, 5.66), PICTURE), {"normalize": "density"}),
        Sample("fractional ratio", (INSIDE, 3.0, PICTURE), {"split_ratio": 1.3}),
        Sample("ratio below 1", (INSIDE, 3.0, PICTURE), {"split_ratio": 0.5, "center": "exact"}, grad=GRAD),
        Sample("exact density", (INSIDE, (2.5, 3.0), PICTURE), EXACT | {"normalize": "density"}, grad=GRAD),
        Sample("sigma per keypoint", (INSIDE, rand(2, 3) + 2, PICTURE), EXACT, grad=BOTH, traced=True),
        Sample("two sigmas per joint", (INSIDE, rand(3, 2) + 2, PICTURE), EXACT | {"normalize": "density"}, grad=BOTH),
        Sample("sigma of a rounded one", (INSIDE, rand(2, 3) + 2, PICTURE), {"normalize": "density"}, grad=("sigma",)),
        Sample("strange sigmas", (points(1, 5), torch.tensor([NAN, INF, -1.0, 0.0, 1.5]), SIZE), EXACT),
        Sample("sigmas of one hot", (INSIDE, rand(2, 3) + 2, PICTURE), {"profile": "one_hot"}),
        Sample("visible, exact", (INSIDE, 3.0, PICTURE), EXACT | {"visible": rand(2, 3) > 0.5}, grad=GRAD),
        Sample("strange keypoints, exact", (STRANGE[:6], 3.0, SIZE), EXACT, grad=GRAD),
        Sample("visible", (INSIDE, 3.0, PICTURE), {"visible": rand(2, 3) > 0.5}, traced=True),
        Sample("one hot", (INSIDE, 3.0, PICTURE), {"profile": "one_hot"}),
        Sample("smoothed", (INSIDE, 3.0, PICTURE), {"profile": "one_hot", "smoothing": 0.1}),
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
        bad("simcc_labels", "smoothing 1", r"smoothing must be in \[0, 1\)", (K, 2.0, SIZE), smoothing=1.0),
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


# By hand --------------------------------------------------------------------------------------------------------------


def row(*values):
    return torch.tensor([float(v) for v in values])


def test_a_horizontal_limb_by_hand(device):
    keypoints = torch.tensor([[[1.0, 1.0], [3.0, 1.0]]], device=device)
    band = part_affinity_fields(keypoints, [(0, 1), (1, 0)], 1.0, (4, 6))
    covered = torch.zeros(4, 6)
    covered[0:3, 0:5] = 1
    torch.testing.assert_close(band[0, 0].cpu(), covered)
    torch.testing.assert_close(band[0, 2].cpu(), -covered)
    assert not band[0, [1, 3]].any()
    covered[2] = covered[:, 4] = 0  # OpenPose leaves the last row and column out
    openpose = part_affinity_fields(keypoints, [(0, 1)], 1.0, (4, 6), profile="openpose")
    torch.testing.assert_close(openpose[0, 0].cpu(), covered)


def test_soft_profiles_by_hand(device):
    keypoints = torch.tensor([[[2.0, 0.0], [2.0, 3.0]]], device=device)
    trt = part_affinity_fields(keypoints, [(0, 1)], 2.0, (6, 4), profile="trt_pose")[0].cpu()
    sleap = part_affinity_fields(keypoints, [(0, 1)], 2.0, (6, 4), profile="sleap")[0].cpu()
    squared = torch.tensor([[4.0, 1, 0, 1]] * 4 + [[5, 2, 1, 2], [8, 5, 4, 5]])  # distance to the limb
    torch.testing.assert_close(trt[1], torch.exp(-squared / 4))
    torch.testing.assert_close(sleap[1], torch.exp(-(squared**2) / 8))
    assert not trt[0].any() and not sleap[0].any()


def test_two_people_are_averaged_where_they_overlap(device):
    keypoints = torch.tensor([[[[0.0, 1.0], [4.0, 1.0]], [[2.0, 0.0], [2.0, 4.0]]]], device=device)
    fields = part_affinity_fields(keypoints, [(0, 1)], 0.5, (5, 5))[0].cpu()
    torch.testing.assert_close(fields[0, 1], row(1, 1, 0.5, 1, 1))
    torch.testing.assert_close(fields[1, :, 2], row(1, 0.5, 1, 1, 1))
    summed = part_affinity_fields(keypoints, [(0, 1)], 0.5, (5, 5), combine="sum")[0].cpu()
    assert summed[:, 1, 2].tolist() == [1, 1]


def test_masks_by_hand(device):
    keypoints = torch.tensor([[[1.0, 2.0], [3.0, 2.0], [1.0, 2.0]]], device=device)
    capsule, disc = limb_masks(keypoints, [(0, 1), (0, 2)], 1.0, (5, 6))[0].cpu()
    expected = torch.zeros(5, 6)
    expected[1, 1:4] = expected[3, 1:4] = 1
    expected[2, 0:5] = 1
    torch.testing.assert_close(capsule, expected)
    expected[:, 2:] = 0
    expected[2, 2] = 1
    torch.testing.assert_close(disc, expected)


def test_offsets_by_hand(device):
    keypoints = torch.tensor([[[[1.0, 1.0]], [[5.0, 1.5]]]], device=device)
    disc, x, y = offset_heatmaps(keypoints, 2.0, (3, 7))[0].cpu()
    torch.testing.assert_close(disc[1], row(1, 1, 1, 1, 1, 1, 1))
    torch.testing.assert_close(disc[0], row(1, 1, 1, 0, 1, 1, 1))
    torch.testing.assert_close(x[0], row(0.5, 0, -0.5, -1, 0.5, 0, -0.5))
    torch.testing.assert_close(y[0], row(0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 0.75))
    last = offset_heatmaps(keypoints, 2.0, (3, 7), combine="last")[0].cpu()
    torch.testing.assert_close(last[1, 0], row(2.5, 2, 1.5, 1, 0.5, 0, -0.5))


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


# Properties -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ("band", "trt_pose", "sleap"))
def test_a_reversed_limb_is_the_negative_field(device, profile):
    keypoints = points(1, 2, size=(20, 16)).float().to(device)
    forward, backward = part_affinity_fields(keypoints, [(0, 1), (1, 0)], 2.0, (20, 16), profile=profile).unflatten(
        1, (2, 2)
    )[0]
    torch.testing.assert_close(forward, -backward)


def test_piecewise_constant_labels_do_not_track_gradients(device):
    keypoints = ONE.float().to(device).requires_grad_()
    maps = (
        limb_masks(keypoints, LIMBS, 2.0, SIZE),
        *simcc_labels(keypoints, 2.0, SIZE),
        *simcc_labels(keypoints, 2.0, SIZE, profile="one_hot", center="exact"),
    )
    assert not any(m.requires_grad for m in maps)


def test_gradients_by_hand(device):
    keypoints = torch.tensor([[[1.0, 1.0], [3.0, 1.0]]], device=device, requires_grad=True)
    # A band's vector (1, 0) turns by dy / length; 15 pixels are covered.
    part_affinity_fields(keypoints, [(0, 1)], 1.0, (4, 6))[0, 1].sum().backward()
    torch.testing.assert_close(keypoints.grad[0].cpu(), torch.tensor([[0.0, -7.5], [0.0, 7.5]]))
    keypoints.grad = None
    # Half way along the limb, a pixel below it: w = exp(-1 / 4), dw/dy = 2 w / 4, half of it each end's.
    part_affinity_fields(keypoints, [(0, 1)], 2.0, (4, 6), profile="trt_pose")[0, 0, 2, 2].backward()
    expected = math.exp(-0.25) / 4
    torch.testing.assert_close(keypoints.grad[0].cpu(), torch.tensor([[0.0, expected], [0.0, expected]]))
    keypoints.grad = None
    offset_heatmaps(keypoints, 2.0, (3, 7)).sum().backward()  # 21 pixels, an offset each, over the radius
    torch.testing.assert_close(keypoints.grad[0].cpu(), torch.full((2, 2), 10.5))
    sigma = torch.tensor(2.0, device=device, requires_grad=True)
    x, _ = simcc_labels(keypoints[:, :1].detach(), sigma, (4, 6), split_ratio=1, center="exact")
    x[0, 0, 3].backward()  # exp(-(3 - 1)^2 / (2 sigma^2)): times 4 / sigma^3
    assert sigma.grad.item() == pytest.approx(math.exp(-0.5) / 2)


@only_on("cuda")
def test_tensors_on_two_devices_are_refused(device):
    with pytest.raises(RuntimeError, match="limb_masks: visible must be on the same device as keypoints"):
        limb_masks(K.to(device), LIMBS, 2.0, SIZE, visible=torch.ones(2, 3, dtype=torch.bool))
