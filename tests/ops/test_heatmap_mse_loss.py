"""heatmap_mse_loss under the contract of op_contract.py, against torch's loss of drawn targets, and its memory."""

import math

import large_inputs as large
import pytest
import torch
from contract_tools import keypoint_source, only_on
from op_contract import TOLERANCES, Bad, Sample, check_op

import pypose_ops
from pypose_ops import gaussian_heatmaps, heatmap_mse_loss, reference

NAN, INF = math.nan, math.inf
SIZE = (6, 5)
rand, points = keypoint_source(3, SIZE)
PRED = rand(2, 3, *SIZE)
ONE = points(2, 3)
CROWD = points(2, 4, 3)
NONE = {"reduction": "none"}
P, PK, ALL = ("pred",), ("pred", "keypoints"), ("pred", "keypoints", "sigma")
STRANGE = torch.tensor([[[NAN, 1], [2, INF], [1e30, 2], [3e38, -3e38], [2.5, 3.25], [-100, 2]]])
WEIGHTS = torch.tensor([[0.5, 0.0, 2.0], [-1.0, 1.0, 3.0]])
STRANGE_WEIGHTS = torch.tensor([NAN, INF, -INF, -0.0, 2.0, 1e-30])
HIDDEN_NAN = torch.where((WEIGHTS > 0)[..., None, None], PRED, NAN)


def sample(name, *args, grad=PK, traced=False, **kwargs):
    return Sample(name, args, NONE | kwargs, grad=grad, traced=traced)


SAMPLES = [
    sample("plain", PRED, ONE, 2.0, traced=True),
    sample("people", PRED, CROWD, 1.5, traced=True),
    sample("sigma per joint", PRED, ONE, rand(3) + 1, grad=ALL, traced=True),
    sample("two sigmas", PRED, CROWD, rand(2, 4, 3, 2) + 1, grad=ALL),
    sample("only sigma", PRED, ONE, rand(2, 3) + 1, grad=("sigma",)),
    sample("only keypoints", PRED, CROWD, 2.0, grad=("keypoints",), traced=True),
    sample("only pred", PRED, ONE, 2.0, grad=P, traced=True),
    sample("weights", PRED, ONE, 2.0, weight=WEIGHTS, traced=True),
    sample("weights of joints", PRED, ONE, 2.0, weight=rand(3)),
    sample("strange weights", rand(1, 6, *SIZE), points(1, 6), 2.0, weight=STRANGE_WEIGHTS),
    sample("NaN where nothing weighs", HIDDEN_NAN, ONE, 2.0, weight=WEIGHTS),
    sample("visible", PRED, ONE, 2.0, visible=rand(2, 3) > 0.5),
    sample("visible as numbers, people", PRED, CROWD, 2.0, visible=torch.tensor([0, 1, 2])),
    sample("nobody visible", PRED, ONE, 2.0, visible=torch.zeros(2, 3)),
    sample("nobody visible, people", PRED, CROWD, 2.0, visible=torch.zeros(2, 4, 3)),
    sample("rounded", PRED, ONE, 2.0, center="rounded", grad=P),
    sample("rounded, sigma", PRED, ONE, rand(3) + 1, center="rounded", grad=("pred", "sigma")),
    sample("truncated", PRED, ONE, 1.3, truncate=1.7),
    sample("sum", PRED, CROWD, 1.5, combine="sum"),
    sample("clipped sum", PRED, CROWD, 2.5, combine="sum_clip"),
    sample("unit sum", PRED, CROWD, rand(3) + 1, normalize="sum", grad=ALL),
    sample("disc", PRED, ONE, 2.3, profile="disc", grad=P, traced=True),
    sample("discs of people", PRED, CROWD, rand(3) + 1.1, profile="disc", combine="sum", grad=P),
    sample("strange keypoints", rand(1, 6, *SIZE), STRANGE, 2.0),
    sample("strange sigmas", rand(1, 5, *SIZE), points(1, 5), torch.tensor([NAN, INF, -1.0, 0.0, 1.5]), grad=P),
    sample("one pixel", rand(2, 3, 1, 1), points(2, 3, size=(1, 1)), 2.0),
    sample("one row", rand(2, 1, 1, 33), points(2, 1, size=(1, 33)), 2.0),
    sample("one column", rand(2, 1, 33, 1), points(2, 1, size=(33, 1)), 2.0),
    sample("several chunks", rand(1, 2, 97, 89), points(1, 2, size=(97, 89)), 3.0, grad=("keypoints",)),
    sample("real size", rand(2, 17, 64, 48), points(2, 17, size=(64, 48)), 2.0, grad=()),
    sample("no items", rand(0, 3, *SIZE), points(0, 3), 2.0, traced=True),
    sample("no joints", rand(2, 0, *SIZE), points(2, 0), 2.0),
    sample("no people", PRED, points(2, 0, 3), 2.0),
]


def bad(name, match, *args, error=ValueError, **kwargs):
    defaults = (PRED.float(), ONE.float(), 2.0)
    return Bad(name, args + defaults[len(args) :], kwargs, error, "heatmap_mse_loss: " + match)


F, K = PRED.float(), ONE.float()
BAD = [
    bad("pred of rank 3", r"pred must be \(B, K, H, W\) or \(S, B, K, H, W\), got shape \(3, 6, 5\)", F[0]),
    bad("pred of rank 6", r"pred must be \(B, K, H, W\)", F[None, None]),
    bad("integer pred", "pred must be float16, bfloat16, float32 or float64", F.long()),
    bad("another batch", "pred must have size 2 in dimension 0", F[:1]),
    bad("other joints", "pred must have size 3 in dimension 1", F[:, :2]),
    bad("stages of another batch", "pred must have size 2 in dimension 1", F[None, :1]),
    bad("no pixels", "size must be positive", F[..., :0]),
    bad("keypoints of rank 2", r"keypoints must be \(B, K, 2\)", F, K[0]),
    bad("half keypoints", "keypoints must be float32 or float64", F, K.half()),
    bad("sigma 0", "sigma must be positive", F, K, 0.0),
    bad("sigma of another shape", "sigma must broadcast", F, K, torch.ones(5), error=ValueError),
    bad("weight of another shape", r"weight must broadcast to \(2, 3\)", weight=torch.ones(2, 4), error=ValueError),
    bad("weight per pixel", r"weight must broadcast to \(2, 3\)", weight=torch.ones_like(F), error=ValueError),
    bad("weight not a tensor", "weight must be a tensor", weight=2.0, error=TypeError),
    bad(
        "weight with a gradient", "weight must not require", weight=torch.ones(3, requires_grad=True), error=ValueError
    ),
    bad("visible of another shape", "visible must broadcast", visible=torch.ones(2, 4), error=ValueError),
    bad("unknown reduction", "reduction must be one of none, mean, sum", reduction="max", error=ValueError),
    bad("unknown profile", "profile must be one of gaussian, disc", profile="square", error=ValueError),
    bad("truncate 0", "truncate must be positive", truncate=0.0),
]

SECOND = "heatmap_mse_loss: double backward is not supported"
TestHeatmapMseLoss = check_op(
    heatmap_mse_loss,
    reference.heatmap_mse_loss,
    SAMPLES,
    bad=BAD,
    maps=("pred",),
    batched=("keypoints", "pred", "sigma", "weight", "visible"),
    second_order=SECOND,
)


# Stages, with the batch first as the contract wants it ---------------------------------------------------------------


def staged_loss(pred, keypoints, sigma, *, weight=None, visible=None):
    """(B, S, K, H, W) -> (B, S, K)."""
    return _staged(heatmap_mse_loss, pred, keypoints, sigma, weight, visible)


def staged_reference(pred, keypoints, sigma, *, weight=None, visible=None):
    return _staged(reference.heatmap_mse_loss, pred, keypoints, sigma, weight, visible)


def _staged(loss, pred, keypoints, sigma, weight, visible):
    weight = weight.transpose(0, 1) if weight is not None and weight.dim() == 3 else weight
    losses = loss(pred.transpose(0, 1), keypoints, sigma, weight=weight, visible=visible, reduction="none")
    return losses.transpose(0, 1)


STAGES = rand(2, 2, 3, *SIZE)
STAGED = [
    Sample("plain", (STAGES, ONE, 2.0), grad=PK, traced=True),
    Sample("people", (STAGES, CROWD, 1.5), grad=PK, traced=True),
    Sample("sigma", (STAGES, CROWD, rand(3) + 1), grad=ALL),
    Sample("weights for all stages", (STAGES, ONE, 2.0), {"weight": WEIGHTS}, grad=PK),
    Sample("weights of stages", (STAGES, CROWD, 2.0), {"weight": rand(2, 2, 3) - 0.3}, grad=PK, traced=True),
    Sample("one stage", (STAGES[:, :1], ONE, 2.0), grad=PK),
    Sample("no stages", (STAGES[:, :0], ONE, 2.0)),
    Sample("several chunks", (rand(1, 3, 1, 97, 89), points(1, 1, size=(97, 89)), 3.0), grad=("keypoints",)),
]
TestStages = check_op(
    staged_loss,
    staged_reference,
    STAGED,
    maps=("pred",),
    batched=("keypoints", "pred", "sigma", "weight", "visible"),
    second_order=SECOND,
)


# By hand --------------------------------------------------------------------------------------------------------------


def test_one_pixel_by_hand(device):
    # The target is exp(-(2^2 + 0) / (2 * 2^2)) = exp(-1/2) at (0, 0).
    pred = torch.full((1, 1, 1, 1), 0.25, device=device, requires_grad=True)
    keypoints = torch.tensor([[[2.0, 0.0]]], device=device, requires_grad=True)
    loss = heatmap_mse_loss(pred, keypoints, 2.0, weight=torch.tensor([[3.0]], device=device))
    loss.backward()
    target = math.exp(-0.5)
    assert loss.item() == pytest.approx(3 * (0.25 - target) ** 2)
    assert pred.grad.item() == pytest.approx(6 * (0.25 - target))
    # d target / d x = target * (0 - x) / sigma^2
    assert keypoints.grad[0, 0].tolist() == pytest.approx([-6 * (0.25 - target) * target * -0.5, 0])


@pytest.mark.parametrize("reduction", ("none", "mean", "sum"))
def test_reductions_are_those_of_torch(device, reduction):
    pred, keypoints = PRED.to(device), ONE.to(device)
    target = gaussian_heatmaps(keypoints, 2.0, SIZE, dtype=torch.float64)
    expected = torch.nn.functional.mse_loss(pred, target, reduction=reduction)
    expected = expected.mean((-2, -1)) if reduction == "none" else expected
    actual = heatmap_mse_loss(pred, keypoints, 2.0, reduction=reduction)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
    gradients = []
    for loss in (heatmap_mse_loss, reference.heatmap_mse_loss):
        leaf = pred.clone().requires_grad_()
        loss(leaf, keypoints, 2.0, reduction=reduction).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float32))
def test_the_mean_reduction_in_half_precision(device, dtype):
    pred = rand(4, 5, 16, 12).to(device, dtype).requires_grad_()
    keypoints = points(4, 5, size=(16, 12)).float().to(device)
    loss = heatmap_mse_loss(pred, keypoints, 2.0)
    loss.backward()
    expected = reference.heatmap_mse_loss(pred.detach().double(), keypoints.double(), 2.0)
    assert (loss.dtype, pred.grad.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", (torch.float16, torch.float32, torch.float64))
@pytest.mark.parametrize("shape", ((2, 3, 2, 64, 48), (2, 1, 1, 97, 89), (1, 1, 1, 64, 144)), ids=str)
def test_the_gradient_of_large_maps(device, shape, dtype):
    """Maps of several blocks on a GPU, of whole vectors and not."""
    pred, keypoints = rand(*shape).to(device, dtype), points(*shape[1:3], size=shape[3:]).to(device)
    weight = rand(*shape[:3]).to(device)
    gradients = []
    for loss, leaf in ((heatmap_mse_loss, pred.clone()), (reference.heatmap_mse_loss, pred.double())):
        leaf.requires_grad_()
        loss(leaf, keypoints, 3.0, weight=weight, reduction="sum").backward()
        gradients.append(leaf.grad.double())
    rtol, atol = TOLERANCES[dtype]
    torch.testing.assert_close(*gradients, rtol=rtol, atol=atol)


def test_hard_keypoint_mining_is_a_top_k(device):
    pred = PRED.to(device).requires_grad_()
    losses = heatmap_mse_loss(pred, ONE.to(device), 2.0, reduction="none")
    losses.topk(1, -1).values.mean().backward()
    touched = pred.grad.flatten(2).any(-1)
    assert touched.sum(1).tolist() == [1, 1]
    assert touched.float().argmax(1).tolist() == losses.argmax(1).tolist()


def test_an_optimiser_moves_keypoints_to_the_maps(device):
    truth = torch.tensor([[[12.3, 20.0], [30.0, 8.75]]], device=device)
    maps = gaussian_heatmaps(truth, 4.0, (48, 40))
    keypoints = (truth + torch.tensor([2.0, -1.5], device=device)).requires_grad_()
    optimiser = torch.optim.LBFGS([keypoints], max_iter=40, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = heatmap_mse_loss(maps, keypoints, 4.0, reduction="sum")
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(keypoints.detach(), truth, rtol=0, atol=1e-3)


# Memory ---------------------------------------------------------------------------------------------------------------


def allocated(call, device):
    """Peak bytes that a call allocates in torch, including its result."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@pytest.mark.parametrize("people", (None, 3))
@pytest.mark.parametrize("stages", (None, 4))
@pytest.mark.parametrize("dtype", (torch.float16, torch.float32))
def test_no_target_is_ever_made(device, dtype, stages, people):
    shape = (4, 17, 64, 48) if stages is None else (stages, 4, 17, 64, 48)
    pred = torch.rand(shape, device=device).to(dtype).requires_grad_()
    shape = (4, 17) if people is None else (4, people, 17)
    keypoints = points(*shape, size=(64, 48)).float().to(device)
    numbers = 64 * 4 * 17 * (stages or 1)  # some values of 4 or 8 bytes per map

    losses = []
    forward = allocated(lambda: losses.append(heatmap_mse_loss(pred, keypoints, 2.0)), device)
    backward = allocated(lambda: torch.autograd.grad(losses[0], pred), device)
    drawn = allocated(lambda: gaussian_heatmaps(keypoints, 2.0, (64, 48)), device)
    assert drawn >= 4 * 4 * 17 * 64 * 48, "the measurement does not see the operators' memory"
    assert forward <= numbers
    assert pred.nbytes <= backward <= pred.nbytes + numbers


@only_on("cpu")
def test_tolerance_of_large_maps(device):
    """A million pixels in float32: the sum must not drift."""
    pred = torch.rand(1, 1, 1024, 1024)
    keypoints = torch.tensor([[[500.0, 500.0]]])
    expected = reference.heatmap_mse_loss(pred.double(), keypoints.double(), 100.0)
    actual = heatmap_mse_loss(pred, keypoints, 100.0)
    torch.testing.assert_close(actual.double(), expected, rtol=TOLERANCES[torch.float32][0] / 100, atol=0)


@only_on("cuda")
def test_tensors_on_two_devices_are_refused(device):
    with pytest.raises(ValueError, match="heatmap_mse_loss: keypoints must be on the same device as pred"):
        heatmap_mse_loss(F.to(device), K, 2.0)
    with pytest.raises(ValueError, match="heatmap_mse_loss: weight must be on the same device as pred"):
        heatmap_mse_loss(F.to(device), K.to(device), 2.0, weight=torch.ones(3))


def losses_of_maps(pred, keypoints):
    return pypose_ops.heatmap_mse_loss(pred, keypoints, 2.0, reduction="none")


LARGE = large.Case(losses_of_maps, (large.maps, large.keypoints), large.K * large.H * large.W, True)
