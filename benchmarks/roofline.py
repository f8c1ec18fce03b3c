#!/usr/bin/env python3
"""Bytes and operations of every operator at the sizes of docs/roofline.md, and how long they take here.

    python benchmarks/roofline.py                                  # this CPU, and the GPU if there is one
    python benchmarks/roofline.py --bandwidth 2000 --flops 40      # and a GPU of 2000 GB/s and 40 Tflop/s

Bytes count every input once and every output once; operations are those of the formula, an exponential or a logarithm
as 20. The floor is the larger of bytes over bandwidth and operations over the arithmetic's rate. "copy" is the floor at
the bandwidth of a large copy, measured in the same run.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass

import bench_tools
import torch

import pypose_ops
from pypose_ops import geometry, reference

EXP = 20  # operations of an exponential or a logarithm
B, K, H, W = bench_tools.HEADLINE
MAP = B * K * H * W  # elements of the maps
HOST = ("group_people", "group_by_tags")  # on the host, whatever the device: assignments, no roofline


@dataclass(frozen=True)
class Row:
    """One operator at one size.

    Attributes:
        op: the operator's name; work: the size in words.
        bytes, operations: the formulas' values.
        inputs: function of a device that makes the arguments; call: of those.
    """

    op: str
    work: str
    bytes: float
    operations: float
    inputs: object
    call: object


def keypoints(device, *shape, size=(H, W)):
    return torch.rand(*shape, 2, device=device) * torch.tensor([size[1] - 1.0, size[0] - 1.0], device=device)


def maps(device):
    return pypose_ops.gaussian_heatmaps(keypoints(device, B, K), 2.0, (H, W))


def target_rows():
    """The operators that draw: what they write."""
    ends = [(i, i + 1) for i in range(16)]
    limbs = len(ends)
    yield Row(
        "gaussian_heatmaps", f"{B} x {K}, {H} x {W}", 4 * MAP, 2 * MAP + EXP * B * K * (H + W),
        lambda d: (keypoints(d, B, K),), lambda k: pypose_ops.gaussian_heatmaps(k, 2.0, (H, W)),
    )  # fmt: skip
    yield Row(
        "heatmap_mse_loss", f"{B} x {K}, {H} x {W}, and backward", 3 * 4 * MAP, 9 * MAP + 2 * EXP * B * K * (H + W),
        lambda d: (torch.rand(B, K, H, W, device=d).requires_grad_(), keypoints(d, B, K)),
        lambda p, k: torch.autograd.grad(pypose_ops.heatmap_mse_loss(p, k, 2.0), p),
    )  # fmt: skip
    yield Row(
        "part_affinity_fields", f"{B} x {limbs} limbs, {H} x {W}", 8 * B * limbs * H * W, 10 * B * limbs * H * W,
        lambda d: (keypoints(d, B, K),), lambda k: pypose_ops.part_affinity_fields(k, ends, 2.0, (H, W)),
    )  # fmt: skip
    yield Row(
        "limb_masks", f"{B} x {limbs} limbs, {H} x {W}", 4 * B * limbs * H * W, 10 * B * limbs * H * W,
        lambda d: (keypoints(d, B, K),), lambda k: pypose_ops.limb_masks(k, ends, 2.0, (H, W)),
    )  # fmt: skip
    yield Row(
        "offset_heatmaps", f"{B} x {K}, {H} x {W}", 12 * MAP, 8 * MAP,
        lambda d: (keypoints(d, B, K),), lambda k: pypose_ops.offset_heatmaps(k, 3.5, (H, W)),
    )  # fmt: skip
    bins = 2 * (256 + 192)
    yield Row(
        "simcc_labels", f"{B} x {K}, 192 x 256, ratio 2", 4 * B * K * bins, (EXP + 4) * B * K * bins,
        lambda d: (keypoints(d, B, K, size=(256, 192)),), lambda k: pypose_ops.simcc_labels(k, 6.0, (256, 192)),
    )  # fmt: skip


def decoder_rows():
    """The operators that read maps."""
    kernel = 11
    blur = 2 * B * K * (5 * (kernel + 4) ** 2 + 13 * kernel)
    yield Row(
        "decode_heatmaps", f"{B} x {K}, {H} x {W}, dark", 4 * MAP, 2 * MAP + blur + 13 * EXP * B * K,
        lambda d: (maps(d),), pypose_ops.decode_heatmaps,
    )  # fmt: skip
    yield Row(
        "find_peaks", f"{B} x {K}, {H} x {W}, radius 1", 4 * MAP, 9 * MAP, lambda d: (maps(d),), pypose_ops.find_peaks
    )
    yield Row(
        "soft_argmax", f"{B} x {K}, {H} x {W}", 4 * MAP, (EXP + 7) * MAP, lambda d: (maps(d),), pypose_ops.soft_argmax
    )
    bins = 2 * (256 + 192)
    yield Row(
        "decode_simcc", f"{B} x {K}, 192 x 256, ratio 2", 4 * B * K * bins, 2 * B * K * bins,
        lambda d: pypose_ops.simcc_labels(keypoints(d, B, K, size=(256, 192)), 6.0, (256, 192)),
        pypose_ops.decode_simcc,
    )  # fmt: skip


def crop_transforms(device):
    center, scale = torch.rand(64, 2) * torch.tensor([1280.0, 720.0]), (0.4 + 0.8 * torch.rand(64, 1)) * 720
    return geometry.box_to_transform(center, scale * torch.tensor([0.75, 1.0]), torch.zeros(64), (256, 192)).to(device)


def patch_rows():
    """Crops: the patches written, and the picture read once; the votes of boxes."""
    patch = 64 * 3 * 256 * 192
    yield Row(
        "crop_patches", "64 x 3 x 256 x 192 of 720p bytes, normalised", 4 * patch + 3 * 720 * 1280,
        10 * patch + 20 * patch / 3,
        lambda d: (torch.randint(256, (1, 3, 720, 1280), dtype=torch.uint8, device=d), crop_transforms(d)),
        lambda i, t: pypose_ops.crop_patches(i, t, (256, 192), mean=120.0, std=58.0),
    )  # fmt: skip
    yield Row(
        "box_vote", "16 x 1000 boxes x 14, 64 x 64", 4 * 16 * 14 * 64 * 64 + 4 * 16 * 1000 * 18,
        16 * 14 * (2 * 64 * 64 + 4 * 1000),
        lambda d: (64 * torch.rand(16, 1000, 4, device=d), torch.rand(16, 1000, 14, device=d)),
        lambda b, w: pypose_ops.box_vote(b, w, (64, 64)),
    )  # fmt: skip


def message_inputs(device):
    unary = pypose_ops.gaussian_heatmaps(keypoints(device, 8, 17, size=(64, 64)), 2.0, (64, 64))
    prior = torch.rand(17 * 17, 127, 127, device=device) / 127**2
    return torch.where(unary > 0.1, unary, 0.0), prior, torch.full((17 * 17,), 1e-3, device=device)


def people_rows():
    """Messages between joints, and what compares and joins people."""
    edges = [(v, j) for v in range(17) for j in range(17)]
    active = 58  # pixels of such a map above 0.1: pi (2 sigma ln 10)
    yield Row(
        "mrf_message_passing", f"8 x 17, 64 x 64, all {len(edges)} edges, {active} active pixels a map",
        4 * (8 * 17 * 64 * 64 * 2 + len(edges) * 127 * 127), 2 * 8 * len(edges) * active * 64 * 64,
        message_inputs, lambda u, p, b: pypose_ops.mrf_message_passing(u, p, b, edges),
    )  # fmt: skip
    tree = [(i, i + 1) for i in range(K - 1)]
    springs = torch.tensor([[2.0, 3.0, 0.05, 0.05]]).expand(K - 1, 4)
    for op, per_step in (("max_product", 12), ("sum_product", 2 * EXP * 16)):
        yield Row(
            op, f"{B} x {K}, {H} x {W}, a chain", 8 * MAP, 2 * 2 * per_step * MAP,
            lambda d: (maps(d), springs.to(d)), lambda u, s, op=op: getattr(pypose_ops, op)(u, tree, s),
        )  # fmt: skip
    yield Row(
        "oks", "16 x 100 x 30 people", 4 * 16 * (130 * 34 + 3000), (EXP + 8) * 16 * 3000 * 17,
        lambda d: (keypoints(d, 16, 100, 17), keypoints(d, 16, 30, 17), torch.full((16, 30), 500.0, device=d)),
        pypose_ops.oks,
    )  # fmt: skip
    yield Row(
        "oks_nms", "16 x 100 people", 4 * 16 * 100 * 37, (EXP + 8) * 16 * 100 * 100 * 17 / 2,
        lambda d: (keypoints(d, 16, 100, 17), torch.rand(16, 100, device=d), torch.full((16, 100), 500.0, device=d)),
        pypose_ops.oks_nms,
    )  # fmt: skip
    limbs, peaks, samples = 19, 20, 10
    ends = [(i % 18, (i + 1) % 18) for i in range(limbs)]
    read = 16 * limbs * peaks**2 * samples

    def fields(device):
        coords = keypoints(device, 16, 18, peaks, size=(64, 48))
        counts = torch.full((16, 18), peaks, device=device)
        return torch.rand(16, 2 * limbs, 64, 48, device=device), pypose_ops.PeakSet(coords, coords[..., 0], counts)

    yield Row(
        "score_limbs", f"16 x {limbs} limbs, {peaks} peaks a joint, {samples} samples",
        4 * 16 * (2 * limbs * 64 * 48 + limbs * peaks**2), 12 * read,
        fields, lambda p, s: pypose_ops.score_limbs(p, s, ends, samples=samples),
    )  # fmt: skip


def rows():
    return [*target_rows(), *decoder_rows(), *patch_rows(), *people_rows()]


def missing():
    """Public operators without a row: a new one needs its formula here and in docs/roofline.md."""
    return sorted(set(reference.__all__) - {row.op for row in rows()} - set(HOST))


def seconds(row, device):
    """The median time of a call."""
    arguments = [row.inputs(device) for _ in range(3)]  # on a GPU: larger than its cache together
    turn = iter(range(10**9))

    def call():
        return row.call(*arguments[next(turn) % len(arguments)])

    if device.type == "cuda":
        return bench_tools.device_seconds(call)
    times = []
    until = time.perf_counter() + 0.5
    call()
    while time.perf_counter() < until or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def unit(value):
    """Seconds in words."""
    return f"{value * 1e6:.1f} us" if value < 1e-3 else f"{value * 1e3:.2f} ms"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bandwidth", type=float, help="of a GPU to predict for, in GB/s")
    parser.add_argument("--flops", type=float, default=40, help="of that GPU in float32, in Tflop/s (default 40)")
    options = parser.parse_args()
    if missing():
        sys.exit(f"roofline.py: no formula for {', '.join(missing())}")
    torch.manual_seed(0)
    bench_tools.settle_allocator()
    devices = [torch.device(name) for name in ("cpu", "cuda") if name == "cpu" or torch.cuda.is_available()]
    speed = {device.type: bench_tools.copy_bandwidth(device) for device in devices}
    for device in devices:
        print(
            f"{bench_tools.device_name(device)}: copies {speed[device.type] / 1e9:.1f} GB/s (bytes read plus written)"
        )
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    head = [
        "operator",
        "work",
        "MB",
        "Mop",
        "op/byte",
        "CPU copy",
        "CPU",
        "CPU / copy",
        "GPU copy",
        "GPU",
        "GPU / copy",
    ]
    head += ["predicted"] if options.bandwidth else []
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows():
        cells = [row.op, row.work, f"{row.bytes / 1e6:.2f}", f"{row.operations / 1e6:.1f}"]
        cells.append(f"{row.operations / row.bytes:.1f}")
        for name in ("cpu", "cuda"):
            device = next((d for d in devices if d.type == name), None)
            if device is None:
                cells += ["not measured"] * 3
            else:
                copy, took = row.bytes / speed[name], seconds(row, device)
                cells += [unit(copy), unit(took), f"{took / copy:.1f}"]
        if options.bandwidth:
            cells.append(unit(max(row.bytes / options.bandwidth / 1e9, row.operations / options.flops / 1e12)))
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
