"""Metrics of 2D pose estimation, vectorised over people, on the device of the tensors.

Functions take all data at once and return a ``TypedDict`` with the names of the field's tables; the classes of
:mod:`pypose_ops.metrics.accumulators` accumulate batches and merge the ranks of ``torch.distributed``. Coordinates are
``(x, y)`` in image pixels.
"""

from ._tables import JointCurves, JointScores
from .accumulators import AUC, COCOAP, EPE, NME, PCK, PCP, AICScore, PCKh
from .aic import AICScores, aic_score
from .coco import CocoScores, coco_ap, coco_ap_by_category, match_people
from .distances import auc, epe, head_size, nme, pck, pckh, pdj, torso_size
from .joint_errors import JointErrors, joint_errors, oks_radius
from .sticks import pcp

__all__ = [
    "AUC",
    "COCOAP",
    "EPE",
    "NME",
    "PCK",
    "PCP",
    "AICScore",
    "AICScores",
    "CocoScores",
    "JointCurves",
    "JointErrors",
    "JointScores",
    "PCKh",
    "aic_score",
    "auc",
    "coco_ap",
    "coco_ap_by_category",
    "epe",
    "head_size",
    "joint_errors",
    "match_people",
    "nme",
    "oks_radius",
    "pck",
    "pckh",
    "pcp",
    "pdj",
    "torso_size",
]
