"""For every operator that infers: a function, an example, which sizes are dynamic, other inputs, tolerances."""

from dataclasses import dataclass, field
from functools import partial
from importlib import resources

import numpy as np
import pytest
import torch
from op_contract import contract_of

import pypose_ops as ops
from pypose_ops.ops._peak_arguments import COMPATS_OF
from pypose_ops.ops._results import LocalPeaks

pytest.importorskip("onnxscript")
import pypose_ops.onnx  # noqa: E402

PX, SCORE = 1e-3, 1e-4


@dataclass
class Case:
    function: object
    inputs: tuple
    dynamic: tuple
    others: list = field(default_factory=list)
    tolerance: object = PX
    ties: bool = False  # the other inputs have equal peaks, whose order OpenVINO does not keep


def spoilt(maps):
    """With pixels that are not finite, some beside peaks."""
    maps = maps.clone()
    where = torch.rand(maps.shape)
    maps[where < 0.002] = float("nan")
    maps[where > 0.998] = float("inf")
    return maps


def drawn(batch, people, joints, height, width):
    keypoints = torch.rand(batch, people, joints, 2) * torch.tensor([width - 1.0, height - 1.0])
    return ops.gaussian_heatmaps(keypoints, 2.0, (height, width)) + 0.01 * torch.rand(batch, joints, height, width)


def real_maps(dtype=torch.float32):
    with resources.as_file(resources.files("pypose_ops") / "data" / "astronaut_movenet.npz") as path:
        return torch.from_numpy(np.load(path)["heat"])[None].to(dtype)


def plateaus():
    return (torch.rand(2, 4, 20, 16) * 8).round() / 8


MAPS = (0, 2, 3)
TRANSFORM = torch.tensor([[4.0, 0.5, 1.0], [-0.2, 4.0, 2.0]])


def decode_heatmaps(refine):
    def function(maps):
        outputs = []
        for compat in COMPATS_OF.get(refine, (None,)):
            with_covariance = refine in ("dark", "dark_udp") and compat is None
            options = {"refine": refine, "compat": compat, "return_covariance": with_covariance}
            outputs.append(ops.decode_heatmaps(maps, max_offset=2.0, **options)[:2])
        return outputs

    others = [drawn(1, 1, 5, 64, 48), torch.rand(3, 5, 31, 20) - 0.3, torch.rand(2, 5, 4, 3), real_maps()[:, :5]]
    return Case(function, (drawn(2, 1, 5, 64, 48),), (MAPS,), [(m,) for m in (*others, *map(spoilt, others))])


def decode_heatmaps_with_covariance():
    maps = drawn(2, 1, 5, 64, 48)

    def function(maps, transform):
        return [ops.decode_heatmaps(maps, refine=r, return_covariance=True, transform=transform) for r in ("dark",)]

    transform = TRANSFORM.repeat(2, 1, 1) * torch.tensor([1.0, 2.0])[:, None, None]
    return Case(function, (maps, transform), (MAPS, (0,)), [(real_maps()[:, :5], TRANSFORM[None])], (PX, SCORE, 0.05))


def decode_heatmaps_flipped():
    def function(maps, flipped, transform):
        pairs = [(0, 1), (3, 4)]
        options = {"flipped": flipped, "flip_pairs": pairs, "transform": transform}
        return [ops.decode_heatmaps(maps, refine="dark_udp", flip_shift=shift, **options) for shift in (False, True)]

    maps, mirrored = drawn(2, 1, 5, 64, 48), drawn(2, 1, 5, 64, 48)
    others = [(maps[:1], spoilt(maps[:1]).flip(-1), TRANSFORM.double())]
    others = [(a, b, t.float()) for a, b, t in others]
    return Case(function, (maps, mirrored, TRANSFORM), (MAPS, MAPS, ()), others)


def decode_heatmaps_half():
    def function(maps):
        return ops.decode_heatmaps(maps, transform=TRANSFORM)

    return Case(function, (drawn(2, 1, 17, 64, 48).half(),), (MAPS,), [(real_maps(torch.float16),)])


def decode_offsets():
    keypoints = 4 + torch.rand(2, 1, 3, 2) * 40

    def function(maps, flipped):
        options = {"refine": "offset", "kernel_size": 5, "radius": 3.5}
        merged = ops.decode_heatmaps(maps, flipped=flipped, flip_pairs=[(0, 1)], transform=TRANSFORM, **options)
        return ops.decode_heatmaps(maps, **options), merged

    maps = ops.offset_heatmaps(keypoints, 3.5, (64, 48)) + 0.01 * torch.rand(2, 9, 64, 48)
    return Case(function, (maps, maps.flip(-1)), (MAPS, MAPS), [(spoilt(maps[:1]), maps[:1].flip(-1))])


def find_peaks():
    def function(maps, threshold):
        return (
            ops.find_peaks(maps),
            ops.find_peaks(maps, radius=3, refine="dark", threshold=threshold, max_peaks=5, transform=TRANSFORM),
            ops.find_peaks(maps, radius=2, refine="quarter", max_peaks=400),
        )

    low = torch.tensor([-1.0, 0.2, 0.5, float("nan")])
    others = [
        (plateaus(), low),
        (spoilt(plateaus()), low),
        (torch.rand(1, 4, 3, 3), low),
        (torch.zeros(1, 4, 9, 9), low),
    ]
    return Case(function, (drawn(2, 3, 4, 64, 48), low), (MAPS, ()), others, ties=True)


def find_peaks_half():
    def function(maps):
        return ops.find_peaks(maps, refine="parabola")

    maps = drawn(2, 2, 4, 64, 48).half()
    return Case(function, (maps,), (MAPS,), [(real_maps(torch.half)[:, :4],), (plateaus().half(),)], ties=True)


def soft_argmax():
    def function(maps):
        return (
            ops.soft_argmax(maps, temperature=20.0, window=7, return_variance=True),
            ops.soft_argmax(maps, temperature=10.0, normalized="corners"),
        )

    others = [(plateaus(),), (spoilt(plateaus()),), (torch.full((1, 4, 5, 6), float("nan")),)]
    return Case(function, (drawn(2, 1, 4, 64, 48),), (MAPS,), others, (PX, 5e-3, SCORE))


def decode_simcc():
    x, y = ops.simcc_labels(torch.rand(2, 5, 2) * 180, 6.0, (256, 192))

    def function(x, y):
        return [
            ops.decode_simcc(x, y, transform=TRANSFORM),
            ops.decode_simcc(x, y, refine="dark"),
            ops.decode_simcc(x, y, refine="dark", compat="mmpose", max_offset=2.0),
        ]

    noisy = [(spoilt(x) + 0.01 * torch.rand(x.shape), y), (x[:1, :, :4], y[:1, :, :7]), (x.half().float(), y)]
    return Case(function, (x, y), ((0, 2), (0, 2)), noisy)


def decode_roi_heatmaps():
    boxes = torch.tensor([[10.0, 20.0, 90.5, 160.0], [5.0, 5.0, 25.0, 30.25], [1.0, 2.0, 1.0, 9.0]])
    maps = drawn(3, 1, 4, 24, 20) + 0.1 * torch.rand(3, 4, 24, 20)
    strange = boxes + torch.tensor([[0, 0, 0, float("nan")], [0, 0, 4e4, 0], [0, 0, 0, 0]])
    others = [(spoilt(maps), boxes), (maps, strange), (maps[:1] - 5, boxes[:1])]
    return Case(ops.decode_roi_heatmaps, (maps, boxes), ((0, 2, 3), (0,)), others)


def crop_patches():
    images = torch.randint(256, (2, 3, 60, 80), dtype=torch.uint8)
    transforms = torch.tensor([[[1.7, 0.3, -5.11], [-0.4, 1.9, 10.07]], [[0.5, 0.01, 20], [0.02, 0.5, -3]]])
    wrong = transforms.clone()
    wrong[1, 0, 0] = float("nan")
    boxes = torch.tensor([[5.03, 5.07, 30.01, 33.09]] * 4)

    def function(images, transforms, boxes):
        options = {"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}
        return [
            ops.crop_patches(images, transforms, (24, 32), antialias=True, mask=boxes, **options),
            ops.crop_patches(images, transforms, (24, 32), padding="border", **options),
            ops.crop_patches(images, transforms, (24, 32), padding="reflect", **options),
            ops.crop_patches(images, transforms, (24, 32), padding="constant", fill=[1.0, 2.0, 3.0]),
        ]

    others = [(images, wrong, boxes[:2]), (images[:1, :, :50], wrong.repeat(2, 1, 1), boxes)]
    return Case(function, (images, transforms, boxes[:2]), (MAPS, (0,), (0,)), others, 2e-3)


def crop_patches_of_one_image():
    image = torch.randint(256, (60, 80, 3), dtype=torch.uint8)
    transforms = torch.tensor([[[1.7, 0.3, -5], [-0.4, 1.9, 10.0]], [[0.5, 0, 20], [0, 0.5, -3]]])

    def function(image, transforms):
        return ops.crop_patches(image.permute(2, 0, 1), transforms, (24, 32), antialias=True)

    others = [(image[:40, :50].contiguous(), torch.cat([transforms, 2 * transforms]))]
    return Case(function, (image, transforms), ((0, 1), (0,)), others, 0.05)


def crop_patches_bicubic():
    maps = torch.randn(2, 5, 20, 26)
    transforms = torch.tensor([[[0.513, 0.101, 1.0], [-0.103, 0.571, 3.0]], [[1.301, 0, -9.03], [0, -1.307, 25.07]]])

    def function(maps, transforms):
        paddings = ("zeros", "border", "reflect")
        return [ops.crop_patches(maps, transforms, (12, 10), mode="bicubic", padding=p) for p in paddings]

    return Case(function, (maps, transforms), (MAPS, (0,)), [(maps[:, :, :7], -2 * transforms)])


def crop_patches_by_index():
    maps = torch.randn(2, 5, 20, 20)
    maps[0, 0, 3, 3] = float("nan")
    transforms = torch.tensor([[[0.513, 0.101, 1.0], [-0.103, 0.571, 3.0]], [[0.301, 0, 2.03], [0, 0.307, 1.07]]])

    def function(maps, other, transforms, index):
        some = ops.crop_patches(maps, transforms, (12, 10), image_index=index, padding="constant", fill=1.0)
        return some, ops.crop_patches([maps[0], other], transforms, (12, 10), image_index=index, mode="nearest")

    inputs = (maps, torch.randn(5, 30, 16), transforms, torch.tensor([1, -1]))
    others = [(*inputs[:2], transforms.repeat(2, 1, 1), torch.tensor([0, 1, 0, 7]))]
    return Case(function, inputs, ((), (), (0,), (0,)), others)


def score_limbs():
    keypoints, limbs = torch.rand(2, 3, 4, 2) * 50, [(0, 1), (1, 2), (3, 2)]
    fields = ops.part_affinity_fields(keypoints, limbs, 1.5, (56, 50))
    peaks = ops.find_peaks(ops.gaussian_heatmaps(keypoints, 2.0, (56, 50)), max_peaks=6)

    def function(fields, coords, counts):
        rules = (("openpose", 10), ("openpose", None), ("trt_pose", 7), ("trapezoid", 10))
        found = LocalPeaks(coords, coords[..., 0], counts)
        return [ops.score_limbs(fields, found, limbs, rule=rule, samples=n) for rule, n in rules]

    other = (fields[:1, :, :40, :40], peaks.coords[:1, :, :4], peaks.counts[:1])
    return Case(function, (fields, peaks.coords, peaks.counts), (MAPS, (0, 2), (0,)), [other], SCORE)


def gaussian_heatmaps():
    keypoints = torch.rand(2, 3, 4, 2) * 50
    keypoints[0, 0, 0] = float("nan")

    def function(keypoints, visible):
        size = (64, 48)
        return (
            ops.gaussian_heatmaps(keypoints, 2.0, size),
            ops.gaussian_heatmaps(
                keypoints, 2.0, size, visible=visible, combine="sum_clip", truncate=3.0, center="rounded"
            ),
            ops.gaussian_heatmaps(keypoints, 3.0, size, profile="disc", normalize="sum", combine="sum"),
            ops.gaussian_heatmaps(keypoints[:, 0], torch.full((4,), 1.5), size, normalize="sum", dtype=torch.float16),
        )

    inputs = (keypoints, torch.rand(2, 3, 4) > 0.3)
    return Case(function, inputs, ((0, 1), (0, 1)), [(keypoints[:1, :2], torch.rand(1, 2, 4) > 0.3)], SCORE)


def oks():
    pred, target = torch.rand(2, 6, 17, 2) * 100, torch.rand(2, 4, 17, 2) * 100
    pred[0, 0, 0], target[0, 1, 2], target[1, 1] = float("nan"), float("inf"), float("nan")
    boxes = torch.tensor([10.0, 20, 60, 80]).repeat(2, 4, 1)

    def function(pred, target, boxes, visible):
        return (
            ops.oks(pred, target, boxes=boxes),
            ops.oks(pred, target, boxes=boxes, visible=visible),
            ops.oks(pred, target, boxes[..., 0] * 100),
        )

    other = (pred[:1], target[:1, :3], boxes[:1, :3], torch.rand(1, 3, 17) > 0.8)
    return Case(function, (pred, target, boxes, torch.rand(2, 4, 17) > 0.4), ((0, 1),) * 4, [other], SCORE)


def oks_nms():
    people = torch.rand(2, 1, 17, 2) * 100 + torch.randn(2, 12, 17, 2) * 3
    scores, area = torch.rand(2, 12), torch.rand(2, 12) * 5000 + 200
    scores[0, 3] = float("nan")

    def function(people, scores, area):
        return [
            ops.oks_nms(people, scores, area, soft=soft, threshold=0.5, max_people=most)
            for soft in (False, True)
            for most in (None, 3)
        ]

    twice = (torch.rand(1, 2, 17, 2) * 100).repeat(1, 10, 1, 1) + torch.randn(1, 20, 17, 2)
    others = [
        (twice, torch.rand(1, 20), torch.full((1, 20), 4000.0)),
        (twice * 0, scores[:1, :1].repeat(1, 20), area[:1, :1].repeat(1, 20)),
    ]
    return Case(function, (people, scores, area), ((0, 1),) * 3, others, SCORE)


def mrf_message_passing():
    unary = torch.rand(2, 4, 20, 16) * 0.2
    unary[0, 0, 0, 0] = float("nan")
    edges = [(0, 1), (1, 0), (2, 1), (3, 1), (3, 3)]

    def function(unary, prior, bias):
        shared = {"prior_index": [0, 1, 1, 0, 1], "num_targets": 5}
        return (
            ops.mrf_message_passing(unary, prior, bias, edges),
            ops.mrf_message_passing(unary, prior[:2], bias, edges, **shared),
        )

    prior = torch.rand(5, 9, 7)
    return Case(
        function, (unary, prior, torch.rand(5)), (MAPS, (), ()), [(drawn(3, 1, 4, 33, 30), prior, torch.rand(5))]
    )


TREE = [(0, 1), (2, 1), (1, 3)]


def springs():
    found = torch.rand(3, 4) * torch.tensor([4.0, 4.0, 0.2, 0.2]) - torch.tensor([2.0, 2.0, 0.0, 0.0])
    found[2, 3] = -1
    return found


def tree_inputs():
    unary = (drawn(2, 2, 4, 20, 16) + 1e-3).log()
    unary[0, 0, 0, 0] = float("nan")
    return unary, springs()


def max_product():
    inputs = tree_inputs()
    function = lambda unary, deformation: ops.max_product(unary, TREE, deformation, root=1)  # noqa: E731
    return Case(function, inputs, (MAPS, ()), [(torch.randn(3, 4, 9, 31), inputs[1])])


def sum_product():
    inputs = tree_inputs()
    function = lambda unary, deformation: ops.sum_product(unary, TREE, deformation)  # noqa: E731
    return Case(function, inputs, (MAPS, ()), [(torch.randn(3, 4, 9, 31), inputs[1])])


def box_vote():
    def function(boxes, weights):
        return ops.box_vote(boxes, weights, (20, 24)), ops.box_vote(boxes[0], weights[0], (20, 24))

    boxes = torch.rand(2, 6, 4) * 20
    boxes[0, 0, 0] = float("nan")
    return Case(function, (boxes, torch.rand(2, 6, 3)), ((0, 1), (0, 1)), [(boxes[:1, :4], torch.rand(1, 4, 3))], SCORE)


def first_traced(name):
    """An operator without a case here: the first traced sample of its own tests, the batch dynamic."""
    contract = contract_of(name)
    arguments = contract.arguments(next(sample for sample in contract.samples if sample.traced))
    tensors = {key: value for key, value in arguments.items() if isinstance(value, torch.Tensor)}

    def function(*given):
        return contract.op(**arguments | dict(zip(tensors, given, strict=True)))

    dynamic = tuple((0,) if key in contract.batched else () for key in tensors)
    return Case(function, tuple(tensors.values()), dynamic)


CASES = {
    **{
        f"decode_heatmaps-{refine}": (lambda refine=refine: decode_heatmaps(refine))
        for refine in (None, "quarter", "parabola", "dark", "dark_udp", "centroid")
    },
    "decode_heatmaps-covariance": decode_heatmaps_with_covariance,
    "decode_heatmaps-flipped": decode_heatmaps_flipped,
    "decode_heatmaps-half": decode_heatmaps_half,
    "decode_heatmaps-offset": decode_offsets,
    "find_peaks": find_peaks,
    "find_peaks-half": find_peaks_half,
    "soft_argmax": soft_argmax,
    "decode_simcc": decode_simcc,
    "decode_roi_heatmaps": decode_roi_heatmaps,
    "crop_patches": crop_patches,
    "crop_patches-image": crop_patches_of_one_image,
    "crop_patches-index": crop_patches_by_index,
    "crop_patches-bicubic": crop_patches_bicubic,
    "score_limbs": score_limbs,
    "gaussian_heatmaps": gaussian_heatmaps,
    "oks": oks,
    "oks_nms": oks_nms,
    "mrf_message_passing": mrf_message_passing,
    "max_product": max_product,
    "sum_product": sum_product,
    "box_vote": box_vote,
}
CASES |= {
    name: partial(first_traced, name)
    for name in pypose_ops.onnx.OPERATORS
    if name not in {case.split("-")[0] for case in CASES}
}


# Of inputs that have to be float32 or float64: transforms, deformations, masks of boxes.
FULL = {"crop_patches": (1, 2), "crop_patches-image": (1,), "crop_patches-index": (2,)}
FULL |= {"decode_heatmaps-covariance": (1,), "decode_heatmaps-flipped": (2,), "max_product": (1,), "sum_product": (1,)}
FULL |= {"find_peaks": (1,), "decode_roi_heatmaps": (1,)}
# Those that may be float64, but not float16.
WIDE = {"mrf_message_passing": (1, 2), "score_limbs": (1,)}
POINTS_ONLY = ("box_vote", "gaussian_heatmaps", "oks", "oks_nms")  # which take no float16 at all


def with_dtype(name, dtype):
    """A case whose floating-point inputs are rounded to a dtype, but for those that have to be float32."""
    case = CASES[name]()
    full = FULL.get(name, ()) + (WIDE.get(name, ()) if dtype.itemsize < 4 else ())
    inputs = tuple(
        tensor.to(dtype) if tensor.is_floating_point() and i not in full else tensor
        for i, tensor in enumerate(case.inputs)
    )
    return Case(case.function, inputs, case.dynamic, [], case.tolerance)
