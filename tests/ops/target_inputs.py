"""Keypoints and limbs for the contracts of the operators that draw targets."""

import math

import torch
from contract_tools import keypoint_source
from op_contract import Bad, Sample

from pypose_ops import skeletons

NAN, INF = math.nan, math.inf
SIZE = (9, 7)
rand, points = keypoint_source(4, SIZE)


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


def bad(op, name, match, args, error=ValueError, **kwargs):
    return Bad(name, args, kwargs, error, f"{op}: {match}")


K = ONE.float()


LIMB_BAD = [
    ("rank 2", r"keypoints must be \(B, K, 2\)", (K[0], LIMBS, 2.0, SIZE), ValueError),
    ("half keypoints", "keypoints must be float32 or float64", (K.half(), LIMBS, 2.0, SIZE), ValueError),
    ("a joint too many", "limbs must be joints from 0 to 2, got 3", (K, [(0, 3)], 2.0, SIZE), ValueError),
    ("a negative joint", "limbs must be joints from 0 to 2, got -1", (K, [(0, 1), (-1, 2)], 2.0, SIZE), ValueError),
    ("a triple", "limbs must be pairs", (K, [(0, 1, 2)], 2.0, SIZE), ValueError),
    ("no pairs", "limbs must be pairs", (K, [0, 1], 2.0, SIZE), ValueError),
    ("too many limbs", "limbs must be at most 256 pairs", (K, [(0, 1)] * 257, 2.0, SIZE), ValueError),
    ("radius 0", "limb_radius must be positive", (K, LIMBS, 0.0, SIZE), ValueError),
    ("negative radius", "limb_radius must be positive", (K, LIMBS, -1.0, SIZE), ValueError),
    ("radius NaN", "limb_radius must be positive", (K, LIMBS, NAN, SIZE), ValueError),
    ("endless radius", "limb_radius must be positive", (K, LIMBS, INF, SIZE), ValueError),
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


# By hand --------------------------------------------------------------------------------------------------------------
def row(*values):
    return torch.tensor([float(v) for v in values])
