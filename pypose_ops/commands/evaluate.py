"""Evaluate predicted joints against a data set's ground truth; print the table of its papers.

--metric pck    LSP, PCK@0.2 of the torso                       .mat of LSP
         pcp    LSP, strict PCP@0.5; --relaxed: the mean of both ends
         pckh   MPII, PCKh@0.5                                  .mat of MPII's validation, with head boxes
         coco   COCO, AP and AR                                 .json of COCO: annotations, results
         aic    AI Challenger, its score                        .json of AI Challenger, both of one form

A .mat of LSP holds joints (3, 14, N) or (14, 3, N), predictions pred (2, 14, N); of MPII pos_gt_src (16, 2, N),
jnt_missing (16, N), headboxes_src (2, 2, N), predictions pos_pred_src (16, 2, N) or preds (N, 16, 2). Where the ground
truth has more people than the predictions, --people says which ones they are.
"""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pypose_ops import metrics
from pypose_ops.skeletons import AIC, COCO, LSP, MPII

from . import InputError
from .predictions import read_aic, read_coco, read_lsp, read_mpii

# The torso of LSP: left shoulder and right hip.
LSP_TORSO = (9, 2)


def add_arguments(parser):
    parser.add_argument("--predictions", metavar="FILE", type=Path, required=True)
    parser.add_argument("--ground-truth", metavar="FILE", type=Path, required=True)
    parser.add_argument("--metric", choices=METRICS, required=True)
    parser.add_argument("--threshold", type=float, help="default: 0.2 for pck, 0.5 for pcp and pckh")
    parser.add_argument("--relaxed", action="store_true", help="pcp: the mean of the two ends counts, not both")
    parser.add_argument("--strict", action="store_true", help="pck, pckh: < instead of <=, as MMPose")
    parser.add_argument(
        "--people",
        metavar="FIRST:LAST",
        help="the people of the ground truth that are predicted, from 1, both included",
    )
    parser.add_argument(
        "--offset",
        type=float,
        default=0.0,
        help="added to predictions: 1 where they count pixels from 0 (pck, pcp, pckh)",
    )


def parse_people(text):
    if text is None:
        return None
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise InputError(f"--people must be FIRST:LAST, such as 1001:2000, got {text}")
    return int(first), int(last)


def columns_of(result, groups):
    """A result's columns, left and right together, and the mean."""
    rows = [(name, result["per_joint"][list(members)].mean().item()) for name, members in groups]
    return [*rows, ("mean", result["mean"].item())]


def run_pck(args):
    pred, target = read_lsp(args.predictions, args.ground_truth, parse_people(args.people))
    threshold = 0.2 if args.threshold is None else args.threshold
    norm = metrics.torso_size(target, LSP_TORSO)
    result = metrics.pck(pred + args.offset, target, norm=norm, threshold=threshold, strict=args.strict)
    return f"PCK@{threshold:g}, %", columns_of(result, LSP.groups), f"{len(pred)} people"


def run_pcp(args):
    pred, target = read_lsp(args.predictions, args.ground_truth, parse_people(args.people))
    threshold = 0.5 if args.threshold is None else args.threshold
    rule = "relaxed" if args.relaxed else "strict"
    result = metrics.pcp(pred + args.offset, target, threshold=threshold, rule=rule)
    return f"PCP@{threshold:g}, {rule}, %", columns_of(result, LSP.stick_groups), f"{len(pred)} people"


def run_pckh(args):
    pred, target, visible, boxes = read_mpii(args.predictions, args.ground_truth, parse_people(args.people))
    threshold = 0.5 if args.threshold is None else args.threshold
    size = metrics.head_size(boxes)
    result = metrics.pckh(pred + args.offset, target, visible, size, threshold=threshold, strict=args.strict)
    without = int((~(size > 0)).sum())
    note = f"{len(pred)} people, {int(result['counts'].sum())} joints"
    return (
        f"PCKh@{threshold:g}, %",
        columns_of(result, MPII.groups),
        note + (f"; {without} have no head box and are not counted" if without else ""),
    )


def note_of(people):
    """How many there are, and in how many pictures nobody is predicted."""
    note = f"{len(people['target'])} people annotated, {len(people['pred'])} predicted"
    missing = set(people["target_picture"].tolist()) - set(people["pred_picture"].tolist())
    return note + (f"; {len(missing)} pictures have no predictions: their people count as missed" if missing else "")


def run_coco(args):
    people = read_coco(args.predictions, args.ground_truth, COCO)
    result = metrics.coco_ap(**people)
    note = note_of(people)
    return "COCO keypoints", [(name, value.item()) for name, value in result.items()], note


def run_aic(args):
    people, unknown = read_aic(args.predictions, args.ground_truth, AIC)
    result = metrics.aic_score(**people)
    note = note_of(people)
    if unknown:
        named = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        note += f"; {len(unknown)} pictures of {args.predictions} are not in the ground truth and not counted: {named}"
    rows = [
        (f"OKS > {t:.2f}", v) for t, v in zip(metrics.aic.THRESHOLDS, result["per_threshold"].tolist(), strict=True)
    ]
    return "AI Challenger keypoints", [*rows, ("score", result["score"].item())], note


METRICS = {"pckh": run_pckh, "pck": run_pck, "pcp": run_pcp, "coco": run_coco, "aic": run_aic}


def run(args):
    title, rows, note = METRICS[args.metric](args)
    digits = 2 if title.endswith("%") else 5
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(name, f"{value:.{digits}f}")
    console = Console()
    console.print(table)
    console.print(note, highlight=False, soft_wrap=True)
