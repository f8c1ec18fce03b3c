#!/usr/bin/env python3
"""Bytes and operations of every operator at the sizes of docs/roofline.md, and how long they take here.

    python benchmarks/roofline.py                                  # this CPU, and the GPU if there is one
    python benchmarks/roofline.py --bandwidth 2000 --flops 40      # and a GPU of 2000 GB/s and 40 Tflop/s

Bytes count every input once and every output once; operations are those of the formula, an exponential or a logarithm
as 20. The floor is the larger of bytes over bandwidth and operations over the arithmetic's rate. "copy" is the floor at
the bandwidth of a large copy, measured in the same run.
"""

import argparse
import sys
from dataclasses import dataclass

import bench_tools
import torch

import pypose_ops
from pypose_ops import geometry, reference

EXP = 20  # operations of an exponential or a logarithm
BATCH, K, H, W = bench_tools.HEADLINE
MAP = K * H * W  # elements of one image's maps
HOST = ("group_people", "group_by_tags")  # on the host, whatever the device: assignments, no roofline


@dataclass(frozen=True)
class Row:
    """One operator at one size.

    Attributes:
        op: the operator's name; work: the size in words.
        bytes, operations: the formulas' values.
        inputs: function of a device that makes the arguments.
        call: function of pypose_ops, or of its reference, and of those arguments.
        backward: the row is that of the call and the gradient of the first argument.
    """

    op: str
    work: str
    bytes: float
    operations: float
    inputs: object
    call: object
    backward: bool = False


def keypoints(device, *shape, size=(H, W)):
    return torch.rand(*shape, 2, device=device) * torch.tensor([size[1] - 1.0, size[0] - 1.0], device=device)


def maps(device, b, dtype):
    return pypose_ops.gaussian_heatmaps(keypoints(device, b, K), 2.0, (H, W), dtype=dtype)


def target_rows(b, dtype):
    """The operators that draw targets."""
    ends = [(i, i + 1) for i in range(16)]
    limbs, t = len(ends), dtype.itemsize
    yield Row(
        "gaussian_heatmaps", f"{b} x {K}, {H} x {W}", t * b * MAP, 2 * b * MAP + EXP * b * K * (H + W),
        lambda d: (keypoints(d, b, K),), lambda ops, k: ops.gaussian_heatmaps(k, 2.0, (H, W), dtype=dtype),
    )  # fmt: skip
    yield Row(
        "heatmap_mse_loss", f"{b} x {K}, {H} x {W}, and backward", 3 * t * b * MAP,
        9 * b * MAP + 2 * EXP * b * K * (H + W),
        lambda d: (torch.rand(b, K, H, W, device=d, dtype=dtype), keypoints(d, b, K)),
        lambda ops, p, k: ops.heatmap_mse_loss(p, k, 2.0), backward=True,
    )  # fmt: skip
    yield Row(
        "part_affinity_fields", f"{b} x {limbs} limbs, {H} x {W}", 2 * t * b * limbs * H * W, 10 * b * limbs * H * W,
        lambda d: (keypoints(d, b, K),),
        lambda ops, k: ops.part_affinity_fields(k, ends, 2.0, (H, W), dtype=dtype),
    )  # fmt: skip
    yield Row(
        "limb_masks", f"{b} x {limbs} limbs, {H} x {W}", t * b * limbs * H * W, 10 * b * limbs * H * W,
        lambda d: (keypoints(d, b, K),), lambda ops, k: ops.limb_masks(k, ends, 2.0, (H, W), dtype=dtype),
    )  # fmt: skip
    yield Row(
        "offset_heatmaps", f"{b} x {K}, {H} x {W}", 3 * t * b * MAP, 8 * b * MAP,
        lambda d: (keypoints(d, b, K),), lambda ops, k: ops.offset_heatmaps(k, 3.5, (H, W), dtype=dtype),
    )  # fmt: skip
    bins = 2 * (256 + 192)
    yield Row(
        "simcc_labels", f"{b} x {K}, 192 x 256, ratio 2", t * b * K * bins, (EXP + 4) * b * K * bins,
        lambda d: (keypoints(d, b, K, size=(256, 192)),),
        lambda ops, k: ops.simcc_labels(k, 6.0, (256, 192), dtype=dtype),
    )  # fmt: skip


def decoder_rows(b, dtype):
    """The operators that decode maps."""
    kernel, t = 11, dtype.itemsize
    blur = 2 * b * K * (5 * (kernel + 4) ** 2 + 13 * kernel)
    size = f"{b} x {K}, {H} x {W}"
    yield Row(
        "decode_heatmaps", f"{size}, dark", t * b * MAP, 2 * b * MAP + blur + 13 * EXP * b * K,
        lambda d: (maps(d, b, dtype),), lambda ops, m: ops.decode_heatmaps(m),
    )  # fmt: skip
    yield Row(
        "find_peaks", f"{size}, radius 1", t * b * MAP + 12 * 32 * b * K, 9 * b * MAP,  # 32 peaks a map at most
        lambda d: (maps(d, b, dtype),), lambda ops, m: ops.find_peaks(m),
    )  # fmt: skip
    yield Row(
        "soft_argmax", size, t * b * MAP, (EXP + 7) * b * MAP,
        lambda d: (maps(d, b, dtype),), lambda ops, m: ops.soft_argmax(m),
    )  # fmt: skip
    bins = 2 * (256 + 192)
    yield Row(
        "decode_simcc", f"{b} x {K}, 192 x 256, ratio 2", t * b * K * bins, 2 * b * K * bins,
        lambda d: pypose_ops.simcc_labels(keypoints(d, b, K, size=(256, 192)), 6.0, (256, 192), dtype=dtype),
        lambda ops, x, y: ops.decode_simcc(x, y),
    )  # fmt: skip
    yield Row(
        "decode_roi_heatmaps", f"{b} x {K}, 56 x 56, boxes of 50 to 200", t * b * K * 56 * 56, 13 * b * K * 56 * 56,
        lambda d: roi_inputs(d, b, dtype), lambda ops, m, boxes: ops.decode_roi_heatmaps(m, boxes),
    )  # fmt: skip


def roi_inputs(device, n, dtype):
    """Maps as Keypoint R-CNN gives them, and boxes of 50 to 200 pixels."""
    blobs = pypose_ops.gaussian_heatmaps(keypoints(device, n, K, size=(56, 56)), 2.5, (56, 56))
    corner = 100 * torch.rand(n, 2, device=device)
    boxes = torch.cat([corner, corner + 50 + 150 * torch.rand(n, 2, device=device)], 1)
    return (12 * blobs - 4 + 0.3 * torch.randn_like(blobs)).to(dtype), boxes


def crop_transforms(device, n):
    center, scale = torch.rand(n, 2) * torch.tensor([1280.0, 720.0]), (0.4 + 0.8 * torch.rand(n, 1)) * 720
    return geometry.box_to_transform(center, scale * torch.tensor([0.75, 1.0]), torch.zeros(n), (256, 192)).to(device)


def patch_rows(b, dtype):
    """Crops: the patches written, and the image read once; the votes of boxes."""
    patch, t = b * 3 * 256 * 192, dtype.itemsize
    yield Row(
        "crop_patches", f"{b} x 3 x 256 x 192 of 720p bytes, normalised", t * patch + 3 * 720 * 1280,
        10 * patch + 20 * patch / 3,
        lambda d: (torch.randint(256, (1, 3, 720, 1280), dtype=torch.uint8, device=d), crop_transforms(d, b)),
        lambda ops, i, m: ops.crop_patches(i, m, (256, 192), mean=120.0, std=58.0, dtype=dtype),
    )  # fmt: skip
    n = images(b)
    yield Row(
        "box_vote", f"{n} x 1000 boxes x 14, 64 x 64", t * n * 14 * 64 * 64 + 4 * n * 1000 * 4 + t * n * 1000 * 14,
        n * 14 * (2 * 64 * 64 + 4 * 1000),
        lambda d: (64 * torch.rand(n, 1000, 4, device=d), torch.rand(n, 1000, 14, device=d, dtype=dtype)),
        lambda ops, boxes, w: ops.box_vote(boxes, w, (64, 64)),
    )  # fmt: skip


def images(b):
    """Images that a batch of as many people comes from."""
    return max(1, b // 4)


def message_inputs(device, n, dtype):
    unary = pypose_ops.gaussian_heatmaps(keypoints(device, n, 17, size=(64, 64)), 2.0, (64, 64))
    prior = torch.rand(17 * 17, 127, 127, device=device) / 127**2
    return torch.where(unary > 0.1, unary, 0.0).to(dtype), prior, torch.full((17 * 17,), 1e-3, device=device)


def graph_rows(b, dtype):
    """Messages between joints."""
    edges, t, n = [(v, j) for v in range(17) for j in range(17)], dtype.itemsize, max(1, b // 8)
    active = 58  # pixels of such a map above 0.1: pi (2 sigma ln 10)
    yield Row(
        "mrf_message_passing", f"{n} x 17, 64 x 64, all {len(edges)} edges, {active} active pixels a map",
        (t + 4) * n * 17 * 64 * 64 + 4 * len(edges) * 127 * 127, 2 * n * len(edges) * active * 64 * 64,
        lambda d: message_inputs(d, n, dtype),
        lambda ops, u, p, bias: ops.mrf_message_passing(u, p, bias, edges),
    )  # fmt: skip
    tree = [(i, i + 1) for i in range(K - 1)]
    springs = torch.tensor([[2.0, 3.0, 0.05, 0.05]]).expand(K - 1, 4)
    for op, per_step in (("max_product", 12), ("sum_product", 2 * EXP * 16)):
        yield Row(
            op, f"{b} x {K}, {H} x {W}, a chain", (t + 4) * b * MAP, 2 * 2 * per_step * b * MAP,
            lambda d: (maps(d, b, dtype), springs.to(d)),
            lambda ops, u, s, op=op: getattr(ops, op)(u, tree, s),
        )  # fmt: skip


def people_rows(b, dtype):
    """What compares and joins people. The keypoints are float32, whatever the dtype of the maps."""
    n, t = images(b), dtype.itemsize
    yield Row(
        "oks", f"{n} x 100 x 30 people", 4 * n * (130 * 34 + 3000), (EXP + 8) * n * 3000 * 17,
        lambda d: (keypoints(d, n, 100, 17), keypoints(d, n, 30, 17), torch.full((n, 30), 500.0, device=d)),
        lambda ops, *people: ops.oks(*people),
    )  # fmt: skip
    yield Row(
        "oks_nms", f"{n} x 100 people", 4 * n * 100 * 37, (EXP + 8) * n * 100 * 100 * 17 / 2,
        lambda d: (keypoints(d, n, 100, 17), torch.rand(n, 100, device=d), torch.full((n, 100), 500.0, device=d)),
        lambda ops, *people: ops.oks_nms(*people),
    )  # fmt: skip
    limbs, peaks, samples = 19, 20, 10
    ends = [(i % 18, (i + 1) % 18) for i in range(limbs)]
    read = n * limbs * peaks**2 * samples

    def fields(device):
        coords = keypoints(device, n, 18, peaks, size=(64, 48))
        counts = torch.full((n, 18), peaks, device=device)
        pafs = torch.rand(n, 2 * limbs, 64, 48, device=device, dtype=dtype)
        return pafs, pypose_ops.LocalPeaks(coords, coords[..., 0], counts)

    yield Row(
        "score_limbs", f"{n} x {limbs} limbs, {peaks} peaks a joint, {samples} samples",
        n * (2 * t * limbs * 64 * 48 + 4 * limbs * peaks**2), 12 * read,
        fields, lambda ops, p, s: ops.score_limbs(p, s, ends, samples=samples),
    )  # fmt: skip


def rows(b=BATCH, dtype=torch.float32):
    """All of them for a batch of b people, with maps of that dtype."""
    families = (target_rows, decoder_rows, patch_rows, graph_rows, people_rows)
    return [row for family in families for row in family(b, dtype)]


def missing():
    """Public operators without a row: a new one needs its formula here and in docs/roofline.md."""
    return sorted(set(reference.__all__) - {row.op for row in rows()} - set(HOST))


def seconds(row, device):
    """The median time of a call."""
    arguments = [row.inputs(device) for _ in range(3)]  # on a GPU: larger than its cache together
    turn = iter(range(10**9))
    function = bench_tools.with_gradient(row.call) if row.backward else row.call

    def call():
        return function(pypose_ops, *arguments[next(turn) % len(arguments)])

    return bench_tools.device_seconds(call) if device.type == "cuda" else bench_tools.host_seconds(call, 0.5)


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
