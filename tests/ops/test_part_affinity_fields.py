"""part_affinity_fields under the contract of op_contract.py, and by hand."""

import math

import large_inputs as large
import pytest
import torch
from contract_tools import only_on
from op_contract import Sample, check_op
from target_inputs import CROWD, GRAD, LIMB_BAD, LIMBS, ONE, PAF_BATCH, SIZE, STRANGE, K, bad, limb_samples, points, row

import pypose_ops
from pypose_ops import limb_masks, offset_heatmaps, part_affinity_fields, reference, simcc_labels

SUMMED = {"profile": "trt_pose", "combine": "sum"}
LINEAR = {"profile": "linear", "combine": "last"}
ASIDE = torch.tensor([0.13, 0.29])  # no pixel on an axis, where the linear profile has a kink
FEW = ("people", "visible", "strange keypoints", "one row", "coco people", "no people")


def named(prefix, samples):
    return [Sample(**(vars(s) | {"name": f"{prefix}, {s.name}", "traced": False})) for s in samples]


TestPartAffinityFields = check_op(
    part_affinity_fields,
    reference.part_affinity_fields,
    limb_samples(GRAD)
    + named("openpose", limb_samples(GRAD, profile="openpose"))
    + named("trt_pose", limb_samples(GRAD, profile="trt_pose", combine="sum"))
    + named("sleap", limb_samples(GRAD, profile="sleap", combine="sum"))
    + named("linear", [s for s in limb_samples(GRAD, **LINEAR) if s.name in FEW])
    + [
        Sample("band, last", (points(2, 9, 3), LIMBS, 1.5, SIZE), {"combine": "last"}, grad=GRAD),
        Sample("linear, last, many", (points(2, 40, 3), LIMBS, 2.5, SIZE), LINEAR, grad=GRAD),
        Sample("linear, mean", (CROWD, LIMBS, 2.5, SIZE), {"profile": "linear"}, grad=GRAD),
        Sample("strange keypoints, linear, gradient", (STRANGE[:4] + ASIDE, LIMBS, 2.0, SIZE), LINEAR, grad=GRAD),
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
        bad(
            "part_affinity_fields",
            "last of a soft profile",
            "combine must be mean or sum with the profiles trt_pose and sleap, which have no edge, got last",
            (K, LIMBS, 2.0, SIZE),
            ValueError,
            profile="sleap",
            combine="last",
        ),
        bad("part_affinity_fields", "dtype", "dtype must be float16", (K, LIMBS, 2.0, SIZE), dtype=torch.int32),
    ],
    batched=PAF_BATCH,
    dtype_argument="dtype",
)


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


def test_a_linear_profile_by_hand(device):
    """Along the diagonal and along (3, 4) the pixels at the ends belong to the limb: no unit vector is exact."""
    keypoints = torch.tensor([[[1.0, 1.0], [4.0, 1.0], [4.0, 4.0], [4.0, 5.0]]], device=device)
    limbs = [(0, 1), (0, 2), (2, 0), (0, 3)]
    fields = part_affinity_fields(keypoints, limbs, 2.0, (7, 7), profile="linear")[0].cpu()
    level = torch.zeros(7, 7)
    level[:3, 1:5] = torch.tensor([[0.5], [1.0], [0.5]])
    torch.testing.assert_close(fields[0], level)
    assert not fields[1].any()
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    between = (x + y >= 2) & (x + y <= 8)
    diagonal = (0.5**0.5 * torch.where(between, 1 - (x - y).abs() * 0.5**0.5 / 2, 0.0)).clamp(min=0)
    for field in (*fields[2:4], *-fields[4:6]):
        torch.testing.assert_close(field, diagonal)
    along, across = 3 * (x - 1) + 4 * (y - 1), (4 * (x - 1) - 3 * (y - 1)).abs() / 5
    slanted = torch.where((along >= 0) & (along <= 25), 1 - across / 2, 0.0).clamp(min=0)
    torch.testing.assert_close(fields[6:], torch.stack([0.6 * slanted, 0.8 * slanted]))


def test_the_last_person_is_on_top(device):
    level, upright, hidden = [[0.0, 1.0], [4.0, 1.0]], [[2.0, 0.0], [2.0, 4.0]], [[3.0, 0.0], [math.nan, 4.0]]
    keypoints = torch.tensor([[level, upright, hidden], [upright, level, hidden]], device=device)
    for profile in ("band", "linear"):
        x, y = part_affinity_fields(keypoints, [(0, 1)], 0.5, (5, 5), profile=profile, combine="last").cpu().unbind(1)
        torch.testing.assert_close(x[:, 1], torch.stack([row(1, 1, 0, 1, 1), row(1, 1, 1, 1, 1)]))
        torch.testing.assert_close(y[:, :, 2], torch.stack([row(1, 1, 1, 1, 1), row(1, 0, 1, 1, 1)]))


def test_two_people_are_averaged_where_they_overlap(device):
    keypoints = torch.tensor([[[[0.0, 1.0], [4.0, 1.0]], [[2.0, 0.0], [2.0, 4.0]]]], device=device)
    fields = part_affinity_fields(keypoints, [(0, 1)], 0.5, (5, 5))[0].cpu()
    torch.testing.assert_close(fields[0, 1], row(1, 1, 0.5, 1, 1))
    torch.testing.assert_close(fields[1, :, 2], row(1, 0.5, 1, 1, 1))
    summed = part_affinity_fields(keypoints, [(0, 1)], 0.5, (5, 5), combine="sum")[0].cpu()
    assert summed[:, 1, 2].tolist() == [1, 1]


# Properties -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("profile", ("band", "trt_pose", "sleap", "linear"))
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
    # The same of the linear profile: w = 1 - 1 / 2, dw/dy = 1 / 2; the ends' pixels belong to it.
    linear = part_affinity_fields(keypoints, [(0, 1)], 2.0, (4, 6), profile="linear")[0, 0]
    (linear[2, 2] + linear[0, 3]).backward()
    torch.testing.assert_close(keypoints.grad[0].cpu(), torch.tensor([[0.0, 0.25], [0.0, 0.25 - 0.5]]))
    keypoints.grad = None
    offset_heatmaps(keypoints, 2.0, (3, 7)).sum().backward()  # 21 pixels, an offset each, over the radius
    torch.testing.assert_close(keypoints.grad[0].cpu(), torch.full((2, 2), 10.5))
    sigma = torch.tensor(2.0, device=device, requires_grad=True)
    x, _ = simcc_labels(keypoints[:, :1].detach(), sigma, (4, 6), split_ratio=1, center="exact")
    x[0, 0, 3].backward()  # exp(-(3 - 1)^2 / (2 sigma^2)): times 4 / sigma^3
    assert sigma.grad.item() == pytest.approx(math.exp(-0.5) / 2)


@only_on("cuda")
def test_tensors_on_two_devices_are_refused(device):
    with pytest.raises(ValueError, match="limb_masks: visible must be on the same device as keypoints"):
        limb_masks(K.to(device), LIMBS, 2.0, SIZE, visible=torch.ones(2, 3, dtype=torch.bool))


LARGE = large.Case(
    lambda k: pypose_ops.part_affinity_fields(k, large.LIMBS, 2.0, profile="trt_pose", **large.draw),
    (large.keypoints,),
    6 * large.H * large.W,
    True,
)
