"""Loss, fields and codecs against floors, torch and other libraries.  pytest benchmarks/bench_targets.py"""

import bench_tools
import mmpose_port
import numpy as np
import pytest
import torch
from bench_tools import HEADLINE, SHAPES, Rotating, named

import pypose_ops
from pypose_ops import (
    codecs,
    heatmap_mse_loss,
    limb_masks,
    offset_heatmaps,
    part_affinity_fields,
    reference,
    simcc_labels,
    skeletons,
)

pytestmark = pytest.mark.benchmark(max_time=0.4, min_rounds=5, warmup=False)
SIGMA = 2.0


def keypoints_of(shape, device, people=()):
    batch, joints, height, width = shape
    span = torch.tensor([width - 1.0, height - 1.0], device=device)
    return torch.rand(batch, *people, joints, 2, device=device) * span


# The fused loss, forward and backward ---------------------------------------------------------------------------------


def separable_loss(pred, keypoints, sigma):
    """What a good torch user writes: the outer product of two Gaussians, then mse_loss."""
    scale, size = -0.5 / sigma**2, pred.shape[-2:]
    x = torch.exp(scale * (torch.arange(size[1], device=pred.device) - keypoints[..., 0, None]) ** 2)
    y = torch.exp(scale * (torch.arange(size[0], device=pred.device) - keypoints[..., 1, None]) ** 2)
    return torch.nn.functional.mse_loss(pred, y[..., :, None] * x[..., None, :])


LOSSES = {
    "op": heatmap_mse_loss,
    "separable torch": separable_loss,
    "reference": reference.heatmap_mse_loss,
    "compile(reference)": "compile",
}


@pytest.mark.parametrize("shape", SHAPES, ids=named)
@pytest.mark.parametrize("row", LOSSES)
def test_loss(benchmark, measure, device, row, shape):
    loss = LOSSES[row]
    if loss == "compile":
        if benchmark.disabled or shape != HEADLINE:
            pytest.skip("torch.compile(reference) is only compiled to be timed, at one shape")
        torch._dynamo.reset()
        loss = torch.compile(reference.heatmap_mse_loss, dynamic=False)
    torch.manual_seed(0)

    def step(pred, keypoints, loss=loss):
        return torch.autograd.grad(loss(pred, keypoints, SIGMA), pred)[0]

    def inputs():
        return torch.rand(shape, device=device, requires_grad=True), keypoints_of(shape, device)

    nbytes = 3 * 4 * bench_tools.pixels(shape)  # read twice, written once
    run = Rotating(step, inputs, device, nbytes)
    expected = step(*run.inputs[0], loss=reference.heatmap_mse_loss)

    def same(actual):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-6 / bench_tools.pixels(shape) * 1e3)

    measure(run, "heatmap_mse_loss", shape, "forward+backward", row, device, nbytes, same)


@pytest.mark.parametrize("shape", SHAPES, ids=named)
def test_loss_floor(measure, device, shape):
    """The prediction read by a sum, then read again and written by a product."""

    def inputs():
        return torch.rand(shape, device=device), torch.empty(shape, device=device)

    nbytes = 3 * 4 * bench_tools.pixels(shape)
    run = Rotating(lambda pred, out: (pred.sum(), torch.mul(pred, 0.5, out=out)), inputs, device, nbytes)
    measure(run, "heatmap_mse_loss", shape, "forward+backward", "floor", device, nbytes)


# Fields: 16 images, 10 people, 19 limbs, 56 x 56 --------------------------------------------------------------------

CROWD = (16, 17, 56, 56)
FIELD = (16, 38, 56, 56)
EDGES = skeletons.COCO.edges


def fields(call, **options):
    return lambda keypoints: call(keypoints, EDGES, 1.0, CROWD[2:], **options)


FIELDS = {
    "part_affinity_fields": {
        "op": (fields(part_affinity_fields), fields(reference.part_affinity_fields)),
        "op, trt_pose": (
            fields(part_affinity_fields, profile="trt_pose", combine="sum"),
            fields(reference.part_affinity_fields, profile="trt_pose", combine="sum"),
        ),
        "reference": (fields(reference.part_affinity_fields), None),
    },
    "limb_masks": {
        "op": (fields(limb_masks), fields(reference.limb_masks)),
        "reference": (fields(reference.limb_masks), None),
    },
}


@pytest.mark.parametrize(("op", "row"), [(op, row) for op, rows in FIELDS.items() for row in rows])
def test_fields(measure, device, op, row):
    call, check = FIELDS[op][row]
    torch.manual_seed(0)
    shape = FIELD if op == "part_affinity_fields" else (16, 19, 56, 56)
    nbytes = 4 * bench_tools.pixels(shape)
    run = Rotating(call, lambda: (keypoints_of(CROWD, device, (10,)),), device, nbytes)
    expected = check(*run.inputs[0]) if check else None

    def same(actual):
        wrong = (actual - expected).abs() > 1e-4  # a pixel on the very edge of a band may fall to either side
        assert wrong.float().mean() < 1e-5

    measure(run, op, shape, "forward", row, device, nbytes, same if check else None)


@pytest.mark.parametrize("shape", (FIELD, (16, 19, 56, 56)), ids=named)
def test_fields_floor(measure, device, shape):
    op = "part_affinity_fields" if shape == FIELD else "limb_masks"
    nbytes = 4 * bench_tools.pixels(shape)
    run = Rotating(lambda out: out.fill_(0.5), lambda: (torch.empty(shape, device=device),), device, nbytes)
    measure(run, op, shape, "forward", "floor", device, nbytes)


LABELS = {
    "offset_heatmaps": (offset_heatmaps, reference.offset_heatmaps, 3.5, (64, 51, 64, 48), (64, 48)),
    "simcc_labels": (simcc_labels, reference.simcc_labels, 6.0, (64, 17, 1, 896), (256, 192)),
}


@pytest.mark.parametrize("op", LABELS)
@pytest.mark.parametrize("row", ("op", "reference", "floor"))
def test_labels(measure, device, op, row):
    call, twin, extent, shape, size = LABELS[op]
    torch.manual_seed(0)
    nbytes = 4 * bench_tools.pixels(shape)
    if row == "floor":
        run = Rotating(lambda: torch.full(shape, 0.5, device=device), tuple, device, nbytes)
        measure(run, op, shape, "forward", row, device, nbytes)
        return
    chosen = call if row == "op" else twin
    run = Rotating(
        lambda keypoints: chosen(keypoints, extent, size),
        lambda: (keypoints_of((64, 17, *size), device),),
        device,
        nbytes,
    )
    expected = twin(*run.inputs[0], extent, size)

    def same(actual):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)

    measure(run, op, shape, "forward", row, device, nbytes, same)


# Their gradients, of a random combination of the maps -----------------------------------------------------------------

GRADIENTS = {
    "part_affinity_fields": (
        FIELD,
        lambda ops, keypoints: ops.part_affinity_fields(
            keypoints, EDGES, 1.0, CROWD[2:], profile="trt_pose", combine="sum"
        ),
    ),
    "offset_heatmaps": (
        LABELS["offset_heatmaps"][3],
        lambda ops, keypoints: ops.offset_heatmaps(keypoints, 3.5, (64, 48)),
    ),
    "simcc_labels": (
        LABELS["simcc_labels"][3],
        lambda ops, keypoints: torch.cat(ops.simcc_labels(keypoints, 6.0, (256, 192), center="exact"), -1),
    ),
}


@pytest.mark.parametrize("op", GRADIENTS)
@pytest.mark.parametrize("row", ("op", "reference"))
def test_gradients(measure, device, op, row):
    shape, draw = GRADIENTS[op]
    torch.manual_seed(0)

    def step(keypoints, weight, ops=pypose_ops if row == "op" else reference):
        maps = draw(ops, keypoints)
        return torch.autograd.grad(maps, keypoints, weight.view_as(maps))[0]

    def inputs():
        of, people = (CROWD, (10,)) if op == "part_affinity_fields" else ((64, 17, *LABELS[op][4]), ())
        return keypoints_of(of, device, people).requires_grad_(), torch.rand(shape, device=device)

    nbytes = 3 * 4 * bench_tools.pixels(shape)  # written once, a weight read twice
    run = Rotating(step, inputs, device, nbytes)
    expected = step(*run.inputs[0], ops=reference)

    def same(actual):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)

    measure(run, op, shape, "forward+backward", row, device, nbytes, same)


# Codecs ---------------------------------------------------------------------------------------------------------------

INPUT, GRID = (192, 256), (48, 64)


SIZE = GRID[::-1]
UDP_SCALE = (191 / 47, 255 / 63)


def port(encode, scale, *args):
    """A numpy port on input pixels, scaled to the grid as MMPose does."""
    return lambda keypoints: encode(keypoints.cpu().numpy() / np.float32(scale), *args)


# codec -> (encoder, its numpy port); None: no other library has it in numpy
CODECS = {
    "MSRAHeatmap": (codecs.MSRAHeatmap(INPUT, GRID, 2.0), port(mmpose_port.encode_msra, 4, 2.0, SIZE)),
    "MSRAHeatmap unbiased": (
        codecs.MSRAHeatmap(INPUT, GRID, 2.0, unbiased=True),
        port(mmpose_port.encode_unbiased, 4, 2.0, SIZE),
    ),
    "UDPHeatmap": (codecs.UDPHeatmap(INPUT, GRID), port(mmpose_port.encode_udp, UDP_SCALE, 2.0, SIZE)),
    "UDPHeatmap combined": (
        codecs.UDPHeatmap(INPUT, GRID, "combined"),
        port(mmpose_port.encode_combined, UDP_SCALE, 3.5, SIZE),
    ),
    "MegviiHeatmap": (codecs.MegviiHeatmap(INPUT, GRID, 11), port(mmpose_port.encode_megvii, 4, 11, SIZE)),
    "SimCCLabel": (codecs.SimCCLabel(INPUT), port(mmpose_port.encode_simcc, 1, 6.0, (256, 192))),
    "HourglassHeatmap": (codecs.HourglassHeatmap(INPUT, GRID, 1.0), None),
    "CPMHeatmap": (codecs.CPMHeatmap(INPUT, GRID), None),
}


def mmpose_encode(function, scale, sigma):
    """A function of an installed MMPose on the same keypoints, image by image, as its data loaders call it."""
    generate = getattr(mmpose_port.peer_module("gaussian_heatmap"), function)
    visible = np.ones((1, 17), np.float32)

    def encode(keypoints):
        points = keypoints.cpu().numpy() / np.float32(scale)
        return np.stack([generate(GRID, points[b : b + 1], visible, sigma)[0] for b in range(len(points))])

    return encode


MMPOSE = {
    "MSRAHeatmap": ("generate_gaussian_heatmaps", 4),
    "MSRAHeatmap unbiased": ("generate_unbiased_gaussian_heatmaps", 4),
    "UDPHeatmap": ("generate_udp_gaussian_heatmaps", UDP_SCALE),
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("row", ("op", "numpy port", "mmpose"))
def test_codecs(measure, device, name, row):
    codec, encode = CODECS[name]
    if row == "mmpose":
        if name not in MMPOSE or mmpose_port.peer_module("gaussian_heatmap") is None:
            pytest.skip("MMPose is not installed, or its encoder needs more than numpy")
        encode = mmpose_encode(*MMPOSE[name], 2.0)
    if row == "numpy port" and encode is None:
        pytest.skip("no numpy port")
    if row == "numpy port" and "Megvii" in name:
        pytest.importorskip("cv2")
    if row != "op" and device.type == "cuda":
        pytest.skip("runs on the CPU only")
    torch.manual_seed(0)
    call = (lambda keypoints: codec.encode(keypoints)[0]) if row == "op" else encode
    nbytes = 4 * bench_tools.pixels(HEADLINE) * (3 if "combined" in name else 1)
    run = Rotating(call, lambda: (keypoints_of((64, 17, 256, 192), device),), device, nbytes)
    measure(run, f"{name.replace(' ', '-')}.encode", HEADLINE, "forward", row, device, nbytes)
