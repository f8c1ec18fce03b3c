"""Evaluate predicted joints against the ground truth of a data set, and print its usual table.

--metric pck    LSP and FLIC, PCK@0.2 of the torso
         pdj    the same as a curve: at 0.05, 0.1, ... 0.3, or at one --threshold
         pcp    LSP, strict PCP@0.5; --relaxed: the mean of both ends
         pckh   MPII, PCKh@0.5
         coco   COCO, AP and AR
         aic    AI Challenger, its score

LSP     .mat, joints (3, 14, N) or (14, 3, N); predictions pred (2, 14, N)
FLIC    examples.mat, or .npz: joints (N, 11, 2) and optionally is_train (N,); predictions of the test people: .mat with
        pred (2, 11, N), .npz with pred (N, 11, 2), joints lsho lelb lwri rsho relb rwri lhip rhip leye reye nose
MPII    .mat, pos_gt_src (16, 2, N), jnt_missing (16, N), headboxes_src (2, 2, N); or .json, .json.gz of MSRA's form
        (joints, joints_vis) or CPM's (joint_self, isValidation), with --head-boxes; predictions pos_pred_src (16, 2, N)
        or preds (N, 16, 2), or .json of either form
COCO    .json, annotations and results, with any joints; missing areas are 0.53 of the box. The OKS constants follow
        from joint names of COCO, AI Challenger or CrowdPose, or from --sigmas. Several categories are matched
        separately and averaged, or --category selects one
AIC     .json of both, in AI Challenger's own format

If the ground truth has more people than the predictions, --people selects them.

--plot OUT draws what went wrong: pck.png, PCK over the threshold; oks.png, the OKS of all people (coco, aic);
errors.png, how many of a joint's predictions are good, off (jitter), on the other side (inversion), on another person
(swap) or nowhere (miss), as Ronchi & Perona (2017) define them, and its distances; confusion.png, which joint lies on
which; worst.png, the worst people; errors.json, the numbers. For pck, pdj, pckh and pcp a joint is in place within the
threshold, of the torso (0.2) or the head (0.5).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pypose_ops import metrics
from pypose_ops.datasets.aic import read_aic_results
from pypose_ops.datasets.files import check_outputs, load_mat
from pypose_ops.datasets.flic import observers_sides, read_flic_results
from pypose_ops.datasets.lsp import read_lsp_results
from pypose_ops.datasets.mpii import read_mpii_results
from pypose_ops.datasets.results import read_coco_pair
from pypose_ops.datasets.skeleton_files import make_skeleton, read_skeleton
from pypose_ops.errors import InputError
from pypose_ops.skeletons import FLIC, LSP, MPII, Skeleton

from . import error_plots, judged, words

if TYPE_CHECKING:
    import torch

CURVE = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--predictions", metavar="FILE", type=Path, required=True)
    parser.add_argument("--ground-truth", metavar="FILE", type=Path, required=True)
    parser.add_argument("--metric", choices=METRICS, required=True)
    parser.add_argument("--threshold", type=float, help="default: 0.2 for pck, 0.5 for pcp and pckh")
    parser.add_argument("--head-boxes", metavar="FILE", type=Path, help="pckh: a .mat with headboxes_src (2, 2, N)")
    parser.add_argument(
        "--observer-centric", action="store_true", help="FLIC: left and right of the predictions are the observer's"
    )
    parser.add_argument("--category", metavar="NAME", help="coco: evaluate one category; default: the mean of all")
    parser.add_argument(
        "--sigmas", metavar="S,S,...", help="coco: OKS constants, one per joint, or the FILE.toml of a skeleton"
    )
    parser.add_argument("--relaxed", action="store_true", help="pcp: compare the mean of both ends instead of each")
    parser.add_argument("--strict", action="store_true", help="pck, pdj, pckh: < instead of <=, as in MMPose")
    parser.add_argument(
        "--people",
        metavar="FIRST:LAST",
        help="range of people in the ground truth that are predicted, from 1, inclusive",
    )
    parser.add_argument(
        "--offset",
        type=float,
        default=0.0,
        help="added to predictions: 1 if their pixels start at 0 (pck, pdj, pcp, pckh)",
    )
    parser.add_argument("--plot", metavar="OUT", type=Path, help="folder for figures of what went wrong")
    parser.add_argument(
        "--images", metavar="FOLDER", type=Path, help="--plot: the images; default: where the ground truth names them"
    )


def parse_people(text: str) -> Any:
    if text is None:
        return None
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise InputError(f"--people must be FIRST:LAST, such as 1001:2000, got {text}")
    return int(first), int(last)


def columns_of(result: Any, groups: Any) -> Any:
    """The columns of a result, left and right combined, and the mean."""
    rows = [(name, result["per_joint"][list(members)].mean().item()) for name, members in groups]
    return [*rows, ("mean", result["mean"].item())]


def read_torso(args: argparse.Namespace) -> Any:
    """Predictions, ground truth, skeleton, and a note, of LSP or FLIC."""
    if args.ground_truth.suffix != ".npz" and "examples" not in load_mat(args.ground_truth):
        if args.observer_centric:
            raise InputError("--observer-centric is for FLIC")
        pred, target = read_lsp_results(args.predictions, args.ground_truth, parse_people(args.people))
        return pred, target, LSP, words.people(len(pred))
    if args.people is not None:
        raise InputError("--people is for LSP and MPII: FLIC's files define the test split")
    pred, target = read_flic_results(args.predictions, args.ground_truth)
    note = words.people(len(pred))
    if args.observer_centric:
        target, swapped = observers_sides(target)
        note += f"; left and right of {swapped} swapped"
    return pred, target, FLIC, note


def torso_of(target: torch.Tensor, skeleton: Skeleton, note: Any) -> Any:
    norm = metrics.torso_size(target, skeleton.torso)
    without = int((~(norm > 0)).sum())
    return norm, note + (f"; {without} without a torso, not counted" if without else "")


def run_pck(args: argparse.Namespace) -> Any:
    pred, target, skeleton, note = read_torso(args)
    norm, note = torso_of(target, skeleton, note)
    threshold = 0.2 if args.threshold is None else args.threshold
    result = metrics.pck(pred + args.offset, target, norm=norm, threshold=threshold, strict=args.strict)
    judge = judge_torso(args, pred, target, skeleton)
    return f"PCK@{threshold:g}, %", columns_of(result, skeleton.groups), note, judge


def judge_torso(args: argparse.Namespace, pred: torch.Tensor, target: torch.Tensor, skeleton: Skeleton) -> Any:
    """What --plot looks at."""
    first, _ = parse_people(args.people) or (1, None)
    return partial(judged.of_torso, args, pred + args.offset, target, skeleton, first)


def run_pdj(args: argparse.Namespace) -> Any:
    pred, target, skeleton, note = read_torso(args)
    norm, note = torso_of(target, skeleton, note)
    thresholds = CURVE if args.threshold is None else (args.threshold,)
    result = metrics.pdj(pred + args.offset, target, norm, thresholds=thresholds, strict=args.strict)
    rows = [("at", *(f"{t:g}" for t in thresholds))]
    rows += [(name, *result["per_joint"][:, list(members)].mean(1).tolist()) for name, members in skeleton.groups]
    return (
        "PDJ of the torso, %",
        [*rows, ("mean", *result["mean"].tolist())],
        note,
        judge_torso(args, pred, target, skeleton),
    )


def run_pcp(args: argparse.Namespace) -> Any:
    pred, target = read_lsp_results(args.predictions, args.ground_truth, parse_people(args.people))
    threshold = 0.5 if args.threshold is None else args.threshold
    rule = "relaxed" if args.relaxed else "strict"
    result = metrics.pcp(pred + args.offset, target, threshold=threshold, rule=rule)
    judge = judge_torso(args, pred, target, LSP)
    return f"PCP@{threshold:g}, {rule}, %", columns_of(result, LSP.stick_groups), words.people(len(pred)), judge


def run_pckh(args: argparse.Namespace) -> Any:
    pred, target, visible, boxes = read_mpii_results(
        args.predictions, args.ground_truth, parse_people(args.people), args.head_boxes
    )
    threshold = 0.5 if args.threshold is None else args.threshold
    size = metrics.head_size(boxes)
    result = metrics.pckh(pred + args.offset, target, size, visible=visible, threshold=threshold, strict=args.strict)
    without = int((~(size > 0)).sum())
    note = f"{words.people(len(pred))}, {int(result['counts'].sum())} joints"
    return (
        f"PCKh@{threshold:g}, %",
        columns_of(result, MPII.groups),
        note + (f"; {without} without a head box, not counted" if without else ""),
        partial(judged.of_heads, args, pred + args.offset, target, visible, size),
    )


def note_of(people: Any) -> str:
    """Summarises the numbers of people, and of images without predictions."""
    note = f"{len(people['target'])} people annotated, {len(people['pred'])} predicted"
    missing = set(people["target_image"].tolist()) - set(people["pred_image"].tolist())
    return note + (f"; {len(missing)} images without predictions: their people count as missed" if missing else "")


def skeleton_of(sigmas: str) -> Skeleton:
    """The joints of ``--sigmas``: of a TOML file, or as many as numbers, without names."""
    if sigmas.endswith(".toml"):
        return read_skeleton(sigmas)
    try:
        values = [float(v) for v in sigmas.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < v < 1e6 for v in values):
        raise InputError(f"--sigmas must be positive numbers with commas between, got {sigmas[:60]}")
    joints = [f"joint {k}" for k in range(len(values))]
    return make_skeleton({"name": "--sigmas", "joints": joints, "sigmas": values}, "--sigmas")


def sigmas_of(text: str | None, given: Skeleton | None, skeleton: Skeleton, path: Path) -> tuple[float, ...]:
    """OKS constants: those of ``--sigmas``, or the skeleton's."""
    count = len(skeleton)
    if given is not None:
        if len(given) != count or given.sigmas is None:
            wrong = f"{len(given)} joints{'' if given.sigmas else ', no sigmas'}"
            raise InputError(
                f"--sigmas must be {count} positive numbers, as many as joints in {path}; {text} has {wrong}"
            )
        return given.sigmas
    if skeleton.sigmas is None:
        raise InputError(
            f"{path}: {count} joints ({words.first(skeleton.joints)}) without known OKS constants; those of 17 (COCO) "
            "and 14 (AI Challenger, CrowdPose) joints are known by their names: give --sigmas"
        )
    return skeleton.sigmas


def run_coco(args: argparse.Namespace) -> Any:
    given = skeleton_of(args.sigmas) if args.sigmas is not None else None
    pair = read_coco_pair(args.predictions, args.ground_truth, args.category, given)
    sigmas = sigmas_of(args.sigmas, given, pair.skeleton, args.ground_truth)
    result = metrics.coco_ap_by_category(pair.people, pair.pred_category, pair.category, sigmas)
    said = [f"no names of joints in the ground truth, taken as {pair.skeleton.name}"] if pair.guessed else []
    note = "; ".join([*said, note_of(pair.people), *pair.notes])
    categories = len(pair.category.unique())
    if categories > 1:
        note += f"; the mean of {categories} categories"
    return (
        "COCO keypoints",
        [(name, value.item()) for name, value in result.items()],
        note,
        partial(judged.of_coco, args, pair, sigmas),
    )


def run_aic(args: argparse.Namespace) -> Any:
    people, unknown, names = read_aic_results(args.predictions, args.ground_truth)
    result = metrics.aic_score(**people)
    note = note_of(people)
    if unknown:
        note += (
            f"; {len(unknown)} images of {args.predictions} are not in the ground truth and are not counted: "
            f"{words.first(unknown)}"
        )
    rows = [
        (f"OKS > {t:.2f}", v) for t, v in zip(metrics.aic.THRESHOLDS, result["per_threshold"].tolist(), strict=True)
    ]
    return (
        "AI Challenger keypoints",
        [*rows, ("score", result["score"].item())],
        note,
        partial(judged.of_aic, args, people, names),
    )


METRICS = {"pckh": run_pckh, "pck": run_pck, "pdj": run_pdj, "pcp": run_pcp, "coco": run_coco, "aic": run_aic}


def run(args: argparse.Namespace) -> None:
    if args.images is not None and args.plot is None:
        raise InputError("--images is for --plot")
    title, rows, note, judge = METRICS[args.metric](args)
    digits = 2 if title.endswith("%") else 5
    table = Table(title=title, show_header=False)
    table.add_column()
    for _ in rows[0][1:]:
        table.add_column(justify="right")
    for name, *values in rows:
        table.add_row(name, *(v if isinstance(v, str) else f"{v:.{digits}f}" for v in values))
    console = Console()
    console.print(table)
    console.print(note, highlight=False, soft_wrap=True)
    if args.plot is not None:
        judged_people = judge()
        images = [file.path for file in judged_people.files if file is not None]
        inputs = [args.predictions, args.ground_truth, args.head_boxes, args.sigmas, *images]
        check_outputs([args.plot / name for name in error_plots.WRITTEN], inputs, "--plot")
        error_plots.plot(judged_people, args.plot)
