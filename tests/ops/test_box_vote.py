"""box_vote under the contract of op_contract.py, and its exact sums."""

import math

import large_inputs as large
import torch
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import box_vote, reference

NAN, INF = math.nan, math.inf
generator = torch.Generator().manual_seed(4)
SIZE = (7, 9)


def rand(*shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def windows(*shape, size=SIZE):
    """Boxes in and around a map."""
    corner = rand(*shape, 2) * torch.tensor([size[1] + 4.0, size[0] + 4.0]) - 4
    return torch.cat([corner, corner + rand(*shape, 2) * 6], -1)


GRAD = ("weights",)
STRANGE = torch.tensor(
    [
        [NAN, 0, 3, 3],
        [0, 0, NAN, 3],
        [4, 4, 1, 1],
        [-INF, 1, INF, 2],
        [-1e30, -1e30, 1e30, 1e30],
        [1e30, 0, 2e30, 4],
        [2.5, 2.5, 2.75, 2.75],
        [3, 3, 3, 3],
    ]
)[None]

SAMPLES = [
    Sample("batch", (windows(2, 5), rand(2, 5, 3) - 0.3, SIZE), grad=GRAD, traced=True),
    Sample("one map", (windows(1, 4), rand(1, 4, 1), SIZE), grad=GRAD),
    Sample("whole pixels", (windows(2, 5).round(), rand(2, 5, 2), SIZE), grad=GRAD),
    Sample("strange boxes", (STRANGE, rand(1, 8, 2), SIZE), grad=GRAD),
    Sample("strange weights", (windows(1, 4), torch.tensor([[[NAN], [INF], [-INF], [1.0]]]), SIZE)),
    Sample("zeros", (windows(1, 4), torch.zeros(1, 4, 2), SIZE), grad=GRAD, exact=True),
    Sample("one pixel", (windows(2, 3, size=(1, 1)), rand(2, 3, 2), (1, 1)), grad=GRAD),
    Sample("one row", (windows(2, 6, size=(1, 70)), rand(2, 6, 2), (1, 70)), grad=GRAD),
    Sample("odd size", (windows(1, 40, size=(37, 67)), rand(1, 40, 2), (37, 67)), grad=GRAD),
    Sample("no boxes", (windows(2, 0), rand(2, 0, 3), SIZE), grad=GRAD, traced=True),
    Sample("no maps", (windows(2, 3), rand(2, 3, 0), SIZE), grad=GRAD),
    Sample("no items", (windows(0, 3), rand(0, 3, 2), SIZE), grad=GRAD),
]


def bad(name, match, *args, error=ValueError):
    defaults = (windows(2, 5).float(), rand(2, 5, 3).float(), SIZE)
    return Bad(name, args + defaults[len(args) :], {}, error, "box_vote: " + match)


B = windows(2, 5).float()
BAD = [
    bad("centres", r"boxes must be \(P, 4\) or \(B, P, 4\), got shape \(2, 5, 2\)", B[..., :2]),
    bad("rank 4", r"weights must be \(P, K\) or \(B, P, K\)", B[None]),
    bad("integer boxes", "boxes must be float32 or float64", B.long()),
    bad("weights without K", r"weights must be \(P, K\)", B, torch.rand(2, 5)),
    bad("weights of another batch", "weights must have size 2 in dimension 0", B, torch.rand(3, 5, 1)),
    bad("weights of another count", "weights must have size 5 in dimension 1", B, torch.rand(2, 4, 1)),
    bad("integer weights", "weights must be float16", B, torch.ones(2, 5, 1).long()),
    bad("size 0", "size must be positive", B, torch.rand(2, 5, 1), (0, 3), error=ValueError),
    bad("huge size", "size must be from 1 to", B, torch.rand(2, 5, 1), (1 << 40, 3)),
]

TestBoxVote = check_op(
    box_vote,
    reference.box_vote,
    SAMPLES,
    bad=BAD,
    maps=("weights",),
    batched=("boxes", "weights"),
)


def test_by_hand(device):
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 0.0]], device=device)
    weights = torch.tensor([[0.5, 1.0], [2.0, 0.0]], device=device, requires_grad=True)
    maps = box_vote(boxes, weights, (2, 3))
    assert maps.tolist() == [[[0.5, 2.5, 2], [0.5, 0.5, 0]], [[1, 1, 0], [1, 1, 0]]]
    (maps * torch.tensor([[1.0, 2, 3], [4, 5, 6]], device=device)).sum().backward()
    assert weights.grad.tolist() == [[12, 12], [5, 5]]


def test_uncovered_pixels_are_exactly_zero(device):
    """A float prefix sum would leave the rounding of all the boxes before."""
    boxes = windows(1, 300, size=(20, 20)).float().to(device)
    weights = (10 ** (8 * rand(1, 300, 1) - 4)).float().to(device)
    covered = reference.box_vote(boxes.double().cpu(), torch.ones(1, 300, 1).double(), (40, 60))
    maps = box_vote(boxes, weights, (40, 60)).cpu()
    assert (maps[covered == 0] == 0).all() and (covered == 0).any()
    exact = reference.box_vote(boxes.double().cpu(), weights.double().cpu(), (40, 60))
    torch.testing.assert_close(maps, exact.float(), rtol=2e-7, atol=0)


def test_the_order_of_the_boxes_does_not_matter(device):
    boxes, weights = windows(1, 100).float().to(device), rand(1, 100, 2).float().to(device)
    order = torch.randperm(100, device=device)
    assert torch.equal(box_vote(boxes, weights, SIZE), box_vote(boxes[:, order], weights[:, order], SIZE))


def test_single_item_without_batch(device):
    boxes, weights = windows(2, 5).float().to(device), rand(2, 5, 3).float().to(device)
    assert torch.equal(box_vote(boxes[1], weights[1], SIZE), box_vote(boxes, weights, SIZE)[1])


def test_extreme_weights(device):
    boxes = torch.tensor([[0.0, 0, 1, 1], [1, 1, 2, 2]], device=device)
    for weight in (3e38, 1e-38, 1e-44):
        maps = box_vote(boxes, torch.tensor([[weight], [-weight]], device=device), (3, 3))[0].tolist()
        w = torch.tensor(weight).item()
        assert maps == [[w, w, 0], [w, 0, -w], [0, -w, -w]]


def test_second_derivative(device):
    boxes, weights = windows(2, 3).to(device), rand(2, 3, 2).to(device).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda w: box_vote(boxes, w, SIZE).pow(2), weights)


LARGE = large.Case(
    lambda b, w: pypose_ops.box_vote(b, w, (large.H, large.W)),
    (large.rows(5, 4, scale=40.0), large.rows(5, large.K)),
    large.K * large.H * large.W,
)
