"""oks, oks_nms, score_limbs, group_people and group_by_tags under the contract of op_contract.py."""

import functools
import inspect
import math
from typing import NamedTuple

import torch
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import reference
from pypose_ops.skeletons import AIC

NAN, INF = math.nan, math.inf
generator = torch.Generator().manual_seed(5)
SIGMAS = (0.03, 0.08, 0.1)


class PeakSet(NamedTuple):
    coords: torch.Tensor
    scores: torch.Tensor
    counts: torch.Tensor


def rand(*shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def randint(high, *shape):
    return torch.randint(high, shape, generator=generator)


# oks ------------------------------------------------------------------------------------------------------------------

PRED, TARGET, AREA = 50 * rand(2, 4, 3, 2), 50 * rand(2, 5, 3, 2), 4000 * rand(2, 5) + 500
BOXES = torch.cat((50 * rand(2, 5, 2), 60 + 50 * rand(2, 5, 2)), -1)
VISIBLE = torch.tensor([[[2, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]]]).expand(2, 5, 3)
STRANGE = torch.tensor([NAN, 1.0, INF, 2.0, 3.0, -INF, 1e30, 1e38, -1e38, 0.0, 4.0, 4.0]).view(1, 2, 3, 2)
DEFAULTS = {"sigmas": SIGMAS}
GRAD = ("pred",)

TestOks = check_op(
    pypose_ops.oks,
    reference.oks,
    [
        Sample("plain", (PRED, TARGET, AREA), DEFAULTS, grad=GRAD, traced=True),
        Sample("visible", (PRED, TARGET, AREA), DEFAULTS | {"visible": VISIBLE}, grad=GRAD, traced=True),
        Sample("boxes for areas", (PRED, TARGET), DEFAULTS | {"boxes": BOXES}, grad=GRAD),
        Sample(
            "boxes for people without joints",
            (PRED * 6 - 100, TARGET, AREA),
            DEFAULTS | {"boxes": BOXES, "visible": VISIBLE},
            grad=GRAD,
            traced=True,
        ),
        Sample("same people", (TARGET, TARGET, AREA), DEFAULTS),
        Sample("area 0", (TARGET[:, :4], TARGET, torch.zeros(2, 5)), DEFAULTS),
        Sample(
            "strange areas", (PRED, TARGET, torch.tensor([NAN, INF, -INF, -1.0, 1e-30]).expand(2, 5)), DEFAULTS
        ),
        Sample("strange predictions", (STRANGE, TARGET[:1], AREA[:1]), DEFAULTS, grad=GRAD),
        Sample("strange targets", (PRED[:1], STRANGE, AREA[:1, :2]), DEFAULTS, grad=GRAD),
        Sample("strange targets with boxes", (PRED[:1], STRANGE, AREA[:1, :2]), DEFAULTS | {"boxes": BOXES[:1, :2]}),
        Sample("coco", (300 * rand(3, 7, 17, 2), 300 * rand(3, 9, 17, 2), 1e5 * rand(3, 9)), grad=GRAD),
        Sample(
            "ai challenger", (rand(1, 3, 14, 2), rand(1, 3, 14, 2), 100 * rand(1, 3)), {"sigmas": AIC.sigmas}, grad=GRAD
        ),
        Sample("a pair a picture", (50 * rand(70, 1, 3, 2), 50 * rand(70, 1, 3, 2), 4000 * rand(70, 1)), DEFAULTS),
        Sample("many joints", (rand(1, 2, 384, 2), rand(1, 3, 384, 2), rand(1, 3) + 10), {"sigmas": [0.05] * 384}),
        Sample("many people", (50 * rand(1, 90, 3, 2), 50 * rand(1, 70, 3, 2), 4000 * rand(1, 70)), DEFAULTS),
        Sample("nobody predicted", (PRED[:, :0], TARGET, AREA), DEFAULTS, grad=GRAD),
        Sample("nobody annotated", (PRED, TARGET[:, :0], AREA[:, :0]), DEFAULTS, grad=GRAD, traced=True),
        Sample("no joints", (PRED[:, :, :0], TARGET[:, :, :0], AREA), {"sigmas": ()}),
    ],
    bad=[
        Bad("rank 2", (PRED[0, 0], TARGET, AREA), DEFAULTS, RuntimeError, r"oks: pred must be \(B, D, K, 2\)"),
        Bad("rank 2 target", (PRED, TARGET[0, 0], AREA), DEFAULTS, RuntimeError, r"oks: target must be \(B, G, K, 2\)"),
        Bad("other joints", (PRED, TARGET[:, :, :2], AREA), DEFAULTS, RuntimeError, "oks: target must have size 3"),
        Bad("other batch", (PRED[:1], TARGET, AREA), DEFAULTS, RuntimeError, "oks: target must have size 1"),
        Bad("other areas", (PRED, TARGET, AREA[:, :2]), DEFAULTS, RuntimeError, "oks: area must have size 5"),
        Bad("half", (PRED.half(), TARGET, AREA), DEFAULTS, RuntimeError, "oks: pred must be float32 or float64"),
        Bad("no area", (PRED, TARGET), DEFAULTS, ValueError, "oks: area or boxes must be given"),
        Bad("box of 3", (PRED, TARGET), {**DEFAULTS, "boxes": BOXES[..., :3]}, ValueError, "boxes must be .*, 4"),
        Bad("boxes", (PRED, TARGET, AREA), {**DEFAULTS, "boxes": BOXES[:, :1]}, RuntimeError, "boxes must have size 5"),
        Bad("sigmas", (PRED, TARGET, AREA), {}, RuntimeError, "oks: sigmas must have one value for each of 3 joints"),
        Bad("sigma 0", (PRED, TARGET, AREA), {"sigmas": (1.0, 0.0, 1.0)}, RuntimeError, "sigmas must be positive"),
        Bad(
            "visible", (PRED, TARGET, AREA), {**DEFAULTS, "visible": torch.ones(2, 4)}, ValueError,
            "oks: visible must broadcast",
        ),
    ],
    batched=("pred", "target", "area", "visible", "boxes"),
    second_order="oks: double backward is not supported",
)  # fmt: skip


# oks_nms --------------------------------------------------------------------------------------------------------------


def crowd(batch, people, joints):
    """People of whom many are nearly the same."""
    originals = 100 * rand(batch, max(1, people // 3), joints, 2)
    return originals[:, randint(originals.shape[1], people)] + 4 * rand(batch, people, joints, 2)


KEYPOINTS, SCORES, AREAS = crowd(2, 12, 3), rand(2, 12), 3000 * rand(2, 12) + 500
NMS = {"sigmas": SIGMAS, "threshold": 0.6}
SOME_NAN = torch.where(rand(2, 12, 3, 1) < 0.3, NAN, crowd(2, 12, 3))

TestOksNms = check_op(
    pypose_ops.oks_nms,
    reference.oks_nms,
    [
        Sample("hard", (KEYPOINTS, SCORES, AREAS), NMS, traced=True),
        Sample("soft", (KEYPOINTS, SCORES, AREAS), NMS | {"soft": True}, traced=True),
        Sample("soft, a few", (KEYPOINTS, SCORES, AREAS), NMS | {"soft": True, "max_people": 3}),
        Sample("hard, a few", (KEYPOINTS, SCORES, AREAS), NMS | {"max_people": 2}),
        Sample("hard, nobody", (KEYPOINTS, SCORES, AREAS), NMS | {"max_people": 0}),
        Sample("boxes", (KEYPOINTS, SCORES), NMS | {"boxes": 60 * rand(2, 12, 4)}),
        Sample("visible", (KEYPOINTS, SCORES, AREAS), NMS | {"visible": rand(2, 12, 3) > 0.4}, traced=True),
        Sample("missing joints", (SOME_NAN, SCORES, AREAS), NMS | {"soft": True}),
        Sample("equal scores", (KEYPOINTS, (SCORES * 3).round() / 3, AREAS), NMS),
        Sample("one person often", (KEYPOINTS[:, :1].expand(2, 12, 3, 2), SCORES, AREAS), NMS),
        Sample("area 0", (KEYPOINTS, SCORES, torch.zeros(2, 12)), NMS),
        Sample(
            "strange scores",
            (KEYPOINTS[:1, :5], torch.tensor([[NAN, INF, -INF, -1.0, 0.5]]), AREAS[:1, :5]),
            NMS,
            equal_nan=True,
        ),
        Sample(
            "strange scores, soft",
            (KEYPOINTS[:1, :5], torch.tensor([[NAN, INF, -INF, -1.0, 0.5]]), AREAS[:1, :5]),
            NMS | {"soft": True},
            equal_nan=True,
        ),
        Sample("coco, more than a block", (crowd(1, 300, 17), rand(1, 300), 1e5 * rand(1, 300)), {"threshold": 0.8}),
        Sample("nobody", (KEYPOINTS[:, :0], SCORES[:, :0], AREAS[:, :0]), NMS, traced=True),
    ],
    bad=[
        Bad("rank 2", (KEYPOINTS[0, 0], SCORES, AREAS), NMS, RuntimeError, r"oks_nms: keypoints must be \(B, N, K, 2"),
        Bad("scores", (KEYPOINTS, SCORES[:, 1:], AREAS), NMS, RuntimeError, "oks_nms: scores must have size 12"),
        Bad("areas", (KEYPOINTS, SCORES, AREAS[:1]), NMS, RuntimeError, "oks_nms: area must have size 2"),
        Bad("no area", (KEYPOINTS, SCORES), NMS, ValueError, "oks_nms: area or boxes must be given"),
        Bad("threshold", (KEYPOINTS, SCORES, AREAS), NMS | {"threshold": 0.0}, RuntimeError, "threshold must be pos"),
        Bad("sigmas", (KEYPOINTS, SCORES, AREAS), {}, RuntimeError, "oks_nms: sigmas must have one value"),
        Bad("max", (KEYPOINTS, SCORES, AREAS), NMS | {"max_people": -1}, RuntimeError, "max_people must not be neg"),
        Bad("half", (KEYPOINTS.half(), SCORES, AREAS), NMS, RuntimeError, "oks_nms: keypoints must be float32 or"),
        Bad(
            "visible", (KEYPOINTS, SCORES, AREAS), NMS | {"visible": torch.ones(2, 2)}, ValueError,
            "oks_nms: visible must broadcast",
        ),
    ],
    batched=("keypoints", "scores", "area", "visible", "boxes"),
)  # fmt: skip


# score_limbs ----------------------------------------------------------------------------------------------------------
# The checks take tensors, not a PeakSet.


def with_peaks(module):
    def score_limbs(pafs, coords, counts, limbs, **options):
        return module.score_limbs(pafs, PeakSet(coords, coords[..., 0], counts), limbs, **options)

    def group_people(coords, scores, counts, limb_scores, limbs, **options):
        return module.group_people(PeakSet(coords, scores, counts), limb_scores, limbs, **options)

    def group_by_tags(coords, scores, counts, tags, **options):
        return module.group_by_tags(PeakSet(coords, scores, counts), tags, **options)

    return score_limbs, group_people, group_by_tags


ours, theirs = with_peaks(pypose_ops), with_peaks(reference)


def signed(op, like):
    """The options in the signature, so that samples may name them."""
    own = list(inspect.signature(op).parameters.values())[:-1]
    options = [p for p in inspect.signature(like).parameters.values() if p.kind is p.KEYWORD_ONLY]
    signature = inspect.Signature([*own, *options])

    @functools.wraps(op)
    def call(*args, **kwargs):
        return op(*args, **kwargs)

    call.__signature__ = signature
    return call


LIMBS = [(0, 1), (2, 1), (1, 3)]
PAFS = 2 * rand(2, 6, 9, 11) - 1
COORDS = rand(2, 4, 5, 2) * torch.tensor([10.0, 8.0])
COUNTS = torch.tensor([[5, 3, 1, 0], [2, 5, 4, 5]])
OUTSIDE = torch.tensor([[-3.0, 2], [40, 2], [3, -0.6], [3, 8.65], [-300, 200]]).expand(1, 4, 5, 2)
STRANGE_COORDS = torch.tensor([[NAN, 2], [INF, 2], [3, -INF], [NAN, NAN], [2, 2.0]]).expand(1, 4, 5, 2)
STRANGE_PAFS = torch.where(rand(2, 6, 9, 11) < 0.2, NAN, PAFS)
ALL = torch.full((1, 4), 5)


def all_rules(name, *args, **options):
    for rule in ("openpose", "trt_pose", "trapezoid"):
        yield Sample(f"{name}, {rule}", args, {"rule": rule} | options, traced=name == "plain")


TestScoreLimbs = check_op(
    signed(ours[0], pypose_ops.score_limbs),
    signed(theirs[0], pypose_ops.score_limbs),
    [
        *all_rules("plain", PAFS, COORDS, COUNTS, LIMBS, fraction=0.3),
        *all_rules("few samples", PAFS, COORDS, COUNTS, LIMBS, samples=2, fraction=0.3),
        *all_rules("many samples", PAFS, COORDS, COUNTS, LIMBS, samples=57, fraction=0.3),
        *all_rules("outside", PAFS[:1], OUTSIDE, ALL, LIMBS, fraction=0.3),
        *all_rules("strange coordinates", PAFS[:1], STRANGE_COORDS, ALL, LIMBS, fraction=0.3),
        *all_rules("strange fields", STRANGE_PAFS, COORDS, COUNTS, LIMBS, fraction=0.3),
        *all_rules("coinciding joints", PAFS, COORDS[:, :1, :1].expand(2, 4, 5, 2), COUNTS, LIMBS, fraction=0.3),
        *all_rules("one pixel", PAFS[..., :1, :1], COORDS / 10, COUNTS, LIMBS, fraction=0.3),
        Sample("openpose's number of samples", (PAFS, COORDS, COUNTS, LIMBS), {"samples": None, "fraction": 0.3}),
        Sample("openpose's defaults", (PAFS.abs(), COORDS, COUNTS, LIMBS), {"samples": None}),
        Sample("one sample", (PAFS, COORDS, COUNTS, LIMBS), {"samples": 1}),
        Sample("short limbs", (PAFS, 5 + COORDS / 500, COUNTS, LIMBS), {"threshold": 9.0}),
        Sample("every fraction", (PAFS, COORDS, COUNTS, LIMBS), {"fraction": 0.0, "threshold": -0.5}),
        Sample("channels", (PAFS, COORDS, COUNTS, LIMBS), {"channels": [(5, 0), (2, 2), (1, 3)], "fraction": 0.3}),
        Sample("strange counts", (PAFS, COORDS, torch.tensor([[-1, 99, 5, 5]] * 2), LIMBS), {"fraction": 0.0}),
        Sample("more peaks than a vector", (PAFS, rand(2, 4, 37, 2) * 9, COUNTS + 30, LIMBS), {"fraction": 0.2}),
        Sample(
            "more limbs than a launch",
            (rand(1, 20, 9, 11), COORDS[:1], COUNTS[1:], [(0, 1)] * 150 + [(1, 2)] * 150),
            {"channels": [(i % 20, i % 7) for i in range(300)]},
        ),
        Sample("no peaks", (PAFS, COORDS, torch.zeros(2, 4).long(), LIMBS), exact=True),
        Sample("no room for peaks", (PAFS, COORDS[:, :, :0], COUNTS, LIMBS)),
        Sample("no limbs", (PAFS, COORDS, COUNTS, [])),
    ],
    bad=[
        Bad(name, args, options, error, "score_limbs: " + match)
        for name, args, options, error, match in (
            ("rank 3", (PAFS[0], COORDS, COUNTS, LIMBS), {}, RuntimeError, r"pafs must be \(B, C, H, W\)"),
            ("integers", (PAFS.long(), COORDS, COUNTS, LIMBS), {}, RuntimeError, "pafs must be float16"),
            ("coords", (PAFS, COORDS[..., 0], COUNTS, LIMBS), {}, RuntimeError, r"peaks.coords must be \(B, K, M, 2"),
            ("counts", (PAFS, COORDS, COUNTS[:, :2], LIMBS), {}, RuntimeError, "peaks.counts must have size 4"),
            ("batch", (PAFS[:1], COORDS, COUNTS, LIMBS), {}, RuntimeError, "peaks.coords must have size 1"),
            ("joint", (PAFS, COORDS, COUNTS, [(0, 4)]), {}, RuntimeError, "limbs must be pairs of two joints"),
            ("same joint", (PAFS, COORDS, COUNTS, [(2, 2)]), {}, RuntimeError, "limbs must be pairs of two joints"),
            ("triple", (PAFS, COORDS, COUNTS, [(0, 1, 2)]), {}, ValueError, "limbs must be pairs"),
            ("numbers", (PAFS, COORDS, COUNTS, [0, 1]), {}, ValueError, "limbs must be pairs of integers"),
            ("too few channels", (PAFS[:, :5], COORDS, COUNTS, LIMBS), {}, RuntimeError, "channels must be from 0"),
            ("channels", (PAFS, COORDS, COUNTS, LIMBS), {"channels": [(0, 1)]}, ValueError, "channels must be 3 pairs"),
            ("rule", (PAFS, COORDS, COUNTS, LIMBS), {"rule": "mean"}, ValueError, "rule must be one of openpose"),
            ("samples 0", (PAFS, COORDS, COUNTS, LIMBS), {"samples": 0}, ValueError, "samples must be positive"),
            (
                "one sample of two ends", (PAFS, COORDS, COUNTS, LIMBS), {"samples": 1, "rule": "trt_pose"},
                RuntimeError, "samples must be from 2 to 1024",
            ),
            (
                "no samples of two ends", (PAFS, COORDS, COUNTS, LIMBS), {"samples": None, "rule": "trapezoid"},
                RuntimeError, "samples must be from 2 to 1024",
            ),
            ("samples", (PAFS, COORDS, COUNTS, LIMBS), {"samples": 5000}, RuntimeError, "samples must be from 0 to"),
            ("fraction", (PAFS, COORDS, COUNTS, LIMBS), {"fraction": 1.5}, RuntimeError, "fraction must be from 0"),
            ("threshold", (PAFS, COORDS, COUNTS, LIMBS), {"threshold": NAN}, RuntimeError, "threshold must be finite"),
            ("no pixels", (PAFS[..., :0], COORDS, COUNTS, LIMBS), {}, RuntimeError, "pafs must not be empty maps"),
        )
    ],
    maps=("pafs",),
    batched=("pafs", "coords", "counts"),
)  # fmt: skip


# group_people and group_by_tags ---------------------------------------------------------------------------------------

PEAKS = (COORDS, rand(2, 4, 5), COUNTS)
CYCLE = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]
TABLE = rand(2, 5, 5, 5) - 0.2
FULL = (rand(3, 4, 9, 2), rand(3, 4, 9), torch.full((3, 4), 9))
ANY = {"min_joints": 1, "min_score": 0.0}

TestGroupPeople = check_op(
    signed(ours[1], pypose_ops.group_people),
    signed(theirs[1], pypose_ops.group_people),
    [
        Sample("optimal", (*PEAKS, TABLE, CYCLE), ANY, traced=True),
        Sample("greedy", (*PEAKS, TABLE, CYCLE), ANY | {"assignment": "greedy"}),
        Sample("defaults", (*PEAKS, TABLE, CYCLE)),
        Sample(
            "thresholds", (*FULL, rand(3, 5, 9, 9), CYCLE), {"min_limb_score": 0.5, "min_joints": 4, "min_score": 1}
        ),
        Sample("full, optimal", (*FULL, rand(3, 5, 9, 9), CYCLE), ANY),
        Sample("full, greedy", (*FULL, rand(3, 5, 9, 9), CYCLE), ANY | {"assignment": "greedy"}),
        Sample("parts that meet", (*FULL, rand(3, 3, 9, 9), [(0, 1), (2, 3), (1, 2)]), ANY),
        Sample("more people than rows", (*FULL, rand(3, 5, 9, 9), CYCLE), ANY | {"max_people": 3}),
        Sample("no rows", (*FULL, rand(3, 5, 9, 9), CYCLE), ANY | {"max_people": 0}),
        Sample("no limb", (*PEAKS, torch.full((2, 5, 5, 5), -INF), CYCLE), ANY, exact=True),
        Sample("strange scores", (*FULL, torch.where(rand(3, 5, 9, 9) < 0.3, NAN, rand(3, 5, 9, 9)), CYCLE), ANY),
        Sample("infinite scores", (*FULL, torch.where(rand(3, 5, 9, 9) < 0.3, INF, rand(3, 5, 9, 9)), CYCLE), ANY),
        Sample("no peaks", (*PEAKS[:2], torch.zeros(2, 4).long(), TABLE, CYCLE), ANY, exact=True),
        Sample("no room for peaks", (COORDS[:, :, :0], rand(2, 4, 0), COUNTS, TABLE[..., :0, :0], CYCLE), ANY),
        Sample("no limbs", (*PEAKS, TABLE[:, :0], []), ANY, exact=True),
    ],
    bad=[
        Bad(name, args, options, error, "group_people: " + match)
        for name, args, options, error, match in (
            ("table", (*PEAKS, TABLE[:, :3], CYCLE), {}, RuntimeError, "limb_scores must have size 5"),
            ("peaks", (*PEAKS, TABLE[..., :3], CYCLE), {}, RuntimeError, "limb_scores must have size 5"),
            ("joint", (*PEAKS, TABLE[:, :1], [(0, 4)]), {}, RuntimeError, "limbs must be pairs of two joints"),
            ("assignment", (*PEAKS, TABLE, CYCLE), {"assignment": "best"}, ValueError, "assignment must be one of"),
            ("negative", (*PEAKS, TABLE, CYCLE), {"min_limb_score": -1.0}, RuntimeError, "min_limb_score must not be"),
            ("nan", (*PEAKS, TABLE, CYCLE), {"min_score": NAN}, RuntimeError, "min_score must be a number"),
            ("rows", (*PEAKS, TABLE, CYCLE), {"max_people": -1}, RuntimeError, "max_people must not be negative"),
        )
    ],
    batched=("coords", "scores", "counts", "limb_scores"),
    on_host=True,
)

# Peaks far from each other: two in one pixel have the same tag, and may change places.
FAR = torch.stack([torch.randperm(80, generator=generator).view(4, 20)[:, :5] for _ in range(4)]).view(2, 2, 4, 5)
FAR = (FAR.permute(0, 2, 3, 1).double(), rand(2, 4, 5), COUNTS)
APART = (3.0 * FULL[0].new_tensor(range(27)).view(1, 3, 9, 1).expand(3, 3, 9, 2), rand(3, 3, 9), FULL[2][:, :3])
TAGS = 4 * rand(2, 4, 80, 80)
WIDE_TAGS = 2 * rand(2, 4, 3, 80, 80)

TestGroupByTags = check_op(
    signed(ours[2], pypose_ops.group_by_tags),
    signed(theirs[2], pypose_ops.group_by_tags),
    [
        Sample("plain", (*FAR, TAGS), traced=True),
        Sample("tags of three numbers", (*FAR, WIDE_TAGS)),
        Sample("order", (*FAR, TAGS), {"joint_order": [3, 1, 0, 2]}),
        Sample("some joints", (*FAR, TAGS), {"joint_order": [3, 1]}),
        Sample("narrow", (*FAR, TAGS), {"max_distance": 0.2, "min_score": 0.5}),
        Sample("wide", (*APART, 4 * rand(3, 3, 80, 80)), {"max_distance": 3.0}),
        Sample("a few rows", (*APART, 4 * rand(3, 3, 80, 80)), {"max_people": 2}),
        Sample("peaks outside", (100 * FAR[0] - 500, FAR[1], COUNTS.clamp(max=1), TAGS)),
        Sample("strange peaks", (STRANGE_COORDS.flip(2), rand(1, 4, 5), ALL // 3, TAGS[:1]), equal_nan=True),
        Sample("strange scores", (FAR[0], torch.where(rand(2, 4, 5) < 0.4, INF, FAR[1]), COUNTS, TAGS), equal_nan=True),
        Sample("strange tags", (*FAR, torch.where(rand(2, 4, 80, 80) < 0.4, NAN, TAGS))),
        Sample("no peaks", (*FAR[:2], torch.zeros(2, 4).long(), TAGS), exact=True),
        Sample("no room for peaks", (COORDS[:, :, :0], rand(2, 4, 0), COUNTS, TAGS)),
    ],
    bad=[
        Bad(name, args, options, error, "group_by_tags: " + match)
        for name, args, options, error, match in (
            ("tags", (*FAR, TAGS[:, :2]), {}, ValueError, r"tags must be \(2, 4, H, W\) or \(2, 4, T, H, W\)"),
            ("no pixels", (*FAR, TAGS[..., :0]), {}, ValueError, "tags must not be empty maps"),
            ("order", (*FAR, TAGS), {"joint_order": [4]}, RuntimeError, "joint_order must name different joints"),
            ("twice", (*FAR, TAGS), {"joint_order": [1, 1]}, RuntimeError, "joint_order must name different joints"),
            ("distance", (*FAR, TAGS), {"max_distance": 0.0}, RuntimeError, "max_distance must be positive"),
        )
    ],
    maps=("tags",),
    batched=("coords", "scores", "counts", "tags"),
    on_host=True,
)
