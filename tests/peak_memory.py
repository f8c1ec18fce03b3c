"""Peak memory of a call beyond its outputs.  python tests/peak_memory.py [metrics]

Every operator in turn, in one process: what was resident before the call, the highest that was resident during it, and
the bytes of its outputs; or every metric, in bytes a person. Linux only.
"""

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

import pypose_ops as ops
from pypose_ops import metrics

LIMBS = [(i, i + 1) for i in range(16)]
SIGMAS = [0.05] * 17


def calls() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Names and calls; the inputs of one are freed before the next."""
    random = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=random)

    points, crowd = rand(128, 17, 2) * 48, rand(64, 10, 17, 2) * 48
    yield "gaussian_heatmaps", lambda: ops.gaussian_heatmaps(points, 2.0, (64, 48))
    yield "part_affinity_fields", lambda: ops.part_affinity_fields(crowd, LIMBS, 1.0, (64, 48))
    yield "offset_heatmaps", lambda: ops.offset_heatmaps(points, 4.0, (64, 48))
    yield "limb_masks", lambda: ops.limb_masks(crowd, LIMBS, 1.0, (64, 48))
    labelled = rand(512, 17, 2) * 192
    yield "simcc_labels", lambda: ops.simcc_labels(labelled, 6.0, (256, 192))
    maps = rand(128, 17, 64, 48)
    wanting = maps.clone().requires_grad_()
    loss = lambda: torch.autograd.grad(ops.heatmap_mse_loss(wanting, points, 2.0).sum(), wanting)  # noqa: E731
    yield "heatmap_mse_loss and backward", loss
    yield "decode_heatmaps", lambda: ops.decode_heatmaps(maps)
    yield "find_peaks", lambda: ops.find_peaks(maps, threshold=0.9, max_peaks=32)
    yield "soft_argmax", lambda: ops.soft_argmax(maps)
    yield "soft_argmax and backward", lambda: torch.autograd.grad(ops.soft_argmax(wanting).sum(), wanting)
    x, y = rand(512, 17, 384), rand(512, 17, 512)
    yield "decode_simcc", lambda: ops.decode_simcc(x, y)
    image = torch.randint(0, 256, (1, 3, 720, 1280), dtype=torch.uint8, generator=random)
    shrink = torch.tensor([[3.0, 0, 10], [0, 3.0, 10]]).repeat(64, 1, 1)
    yield "crop_patches", lambda: ops.crop_patches(image, shrink, (256, 192))
    yield "crop_patches, antialias", lambda: ops.crop_patches(image, shrink, (256, 192), antialias=True)
    unary = rand(8, 17, 64, 64)
    edges = [(i, j) for i in range(17) for j in range(17) if i != j]
    priors, bias = rand(len(edges), 63, 63), rand(len(edges), 64, 64)
    yield "mrf_message_passing", lambda: ops.mrf_message_passing(unary, priors, bias, edges)
    deformation = torch.full((16, 4), 0.1)
    yield "max_product", lambda: ops.max_product(unary, LIMBS, deformation)
    yield "sum_product", lambda: ops.sum_product(unary, LIMBS, deformation)
    people, scores, areas = rand(1, 2000, 17, 2) * 1000, rand(1, 2000), torch.full((1, 2000), 100.0)
    yield "oks", lambda: ops.oks(people, people, areas, sigmas=SIGMAS)
    yield "oks_nms", lambda: ops.oks_nms(people, scores, areas, sigmas=SIGMAS)
    boxes = rand(8, 100, 4) * 30
    boxes[..., 2:] += boxes[..., :2]
    weights = rand(8, 100, 17)
    yield "box_vote", lambda: ops.box_vote(boxes, weights, (64, 48))


def people_of(count: int) -> dict[str, torch.Tensor]:
    """Predicted and annotated people, four of each an image."""
    random = torch.Generator().manual_seed(0)
    target = 200 * torch.rand(count, 17, 2, generator=random)
    image = torch.arange(count) // 4
    return dict(
        pred=target + torch.randn(count, 17, 2, generator=random),
        scores=torch.rand(count, generator=random),
        pred_image=image,
        target=target,
        area=torch.full((count,), 5000.0),
        target_image=image,
        visible=torch.rand(count, 17, generator=random) > 0.2,
    )


def metric_calls(people: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    inputs = people_of(people)
    poses = {name: inputs[name] for name in ("pred", "target", "visible")}
    yield "coco_ap", lambda: metrics.coco_ap(**inputs)
    yield "match_people", lambda: metrics.match_people(**inputs)
    yield "pck", lambda: metrics.pck(**poses, norm=inputs["area"])
    yield "pdj", lambda: metrics.pdj(**poses, torso_size=inputs["area"])
    yield "nme", lambda: metrics.nme(**poses, norm=inputs["area"])
    yield "pcp", lambda: metrics.pcp(**poses)


def resident(key: str) -> int:
    """A line of ``/proc/self/status``, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def peak_of(call: Callable[[], Any]) -> tuple[int, int]:
    """Bytes of the outputs, and the growth of what is resident at its peak."""
    del_me = call()  # what is allocated once, such as threads and tables
    del del_me
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = resident("VmRSS")
    result = call()
    grown = resident("VmHWM") - before
    return sum(t.numel() * t.element_size() for t in tree_leaves(result) if isinstance(t, torch.Tensor)), grown


def main() -> None:
    if "metrics" in sys.argv:
        people = 400_000
        print("| metric | more at the peak, bytes a person |")
        print("|---|--:|")
        for name, call in metric_calls(people):
            print(f"| {name} | {peak_of(call)[1] / people:.0f} |", flush=True)
        return
    print("| operator | outputs, MB | more at the peak, MB |")
    print("|---|--:|--:|")
    for name, call in calls():
        outputs, grown = peak_of(call)
        print(f"| {name} | {outputs / 1e6:.2f} | {max(0, grown - outputs) / 1e6:.2f} |", flush=True)


if __name__ == "__main__":
    main()
