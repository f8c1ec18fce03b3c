"""Predicted joints beside the annotated ones, whatever the data set: what ``evaluate --plot`` looks at."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from pypose_ops import metrics
from pypose_ops.datasets.flic import flic_image_names
from pypose_ops.datasets.images import ImageFile
from pypose_ops.datasets.mpii import mpii_image_names
from pypose_ops.datasets.results import CocoPair
from pypose_ops.datasets.source import ImageFinder, Source
from pypose_ops.metrics.distances import MPII_EXCLUDED
from pypose_ops.skeletons import AIC, LSP, MPII, Skeleton


@dataclass
class Judged:
    """Predicted joints beside the annotated ones, a row for every annotated person.

    Attributes:
        skeleton: of the joints.
        pred, target: ``(N, K, 2)`` image pixels; NaN in ``pred`` for people without a prediction.
        visible: ``(N, K)`` bool: the joints that count.
        norm: ``(N,)`` the unit of the curves, in pixels; ``unit`` is its name.
        limit: the end of the curves, in units.
        radius: ``(N,)`` or ``(N, K)``, as of :func:`.metrics.joint_errors`.
        image: ``(N,)`` the image of each, or None: each in its own.
        oks: whether ``radius`` is that of the OKS.
        files: the image of each, or None where its name is not known.
        origin: what the first pixel is called.
        exclude: joints that are not in the mean of the curves; ``strict``: as of :func:`.metrics.pck`.
    """

    skeleton: Skeleton
    pred: torch.Tensor
    target: torch.Tensor
    visible: torch.Tensor
    norm: torch.Tensor
    unit: str
    limit: float
    radius: torch.Tensor
    image: torch.Tensor | None = None
    oks: bool = False
    files: Sequence[ImageFile | None] = field(default_factory=list)
    origin: int = 0
    exclude: Sequence[int] = ()
    strict: bool = False

    @property
    def found(self) -> torch.Tensor:
        """(N,) bool: people with a prediction and a joint that counts."""
        return self.pred.isfinite().flatten(1).any(1) & self.visible.any(1)

    def errors(self) -> metrics.JointErrors:
        """Errors of the people who were found, against all people of their images."""
        result = metrics.joint_errors(
            self.pred,
            self.target,
            self.radius,
            flip_pairs=self.skeleton.flip_pairs,
            visible=self.visible,
            image=self.image,
        )
        return metrics.JointErrors(*(values[self.found] for values in result))


def of_torso(
    args: argparse.Namespace, pred: torch.Tensor, target: torch.Tensor, skeleton: Skeleton, first: int
) -> Judged:
    """LSP or FLIC: near is within --threshold of the torso; ``first`` is the number of the first person in LSP."""
    norm = metrics.torso_size(target, skeleton.torso)
    threshold = args.threshold if args.metric in ("pck", "pdj") and args.threshold else 0.2
    visible = target.isfinite().all(-1) & (norm > 0)[:, None]
    if skeleton is LSP:
        names = [f"im{first + i:04d}.jpg" for i in range(len(target))]
    else:
        names = flic_image_names(args.ground_truth)
    return Judged(
        skeleton,
        pred,
        target,
        visible,
        norm,
        "torso",
        2 * threshold,
        threshold * norm,
        files=files_of(args, names),
        strict=args.strict,
    )


def of_heads(
    args: argparse.Namespace, pred: torch.Tensor, target: torch.Tensor, visible: torch.Tensor, size: torch.Tensor
) -> Judged:
    """MPII: near is within --threshold of the head."""
    threshold = args.threshold or 0.5
    visible = visible & target.isfinite().all(-1) & (size > 0)[:, None]
    names = mpii_image_names(args.ground_truth)
    if names is not None and args.people is not None:
        first, last = (int(n) for n in args.people.split(":"))
        names = names[first - 1 : last]
    return Judged(
        MPII, pred, target, visible, size, "head", 2 * threshold, threshold * size,
        image=numbered(names), files=files_of(args, names), origin=1, exclude=MPII_EXCLUDED,
        strict=args.strict,
    )  # fmt: skip


def of_coco(args: argparse.Namespace, pair: CocoPair, sigmas: Sequence[float]) -> Judged:
    """COCO: near is a keypoint similarity of 0.5; people are matched within their category."""
    people = pair.people
    categories = int(torch.cat((pair.category, pair.pred_category)).amax()) + 1 if len(pair.category) else 1
    image = people["target_image"] * categories + pair.category
    keys = {"pred_image": people["pred_image"] * categories + pair.pred_category, "target_image": image}
    match = metrics.match_people(**people | keys, sigmas=sigmas)
    visible = people["visible"] & ~people["crowd"][:, None]
    return of_oks(
        args, pair.skeleton, people["pred"], match, people["target"], visible, image, people["area"], sigmas, pair.names
    )


def of_aic(args: argparse.Namespace, people: dict[str, torch.Tensor], names: Sequence[str]) -> Judged:
    """AI Challenger, whose people have no scores; 1 is added to its areas."""
    area = people["area"] + 1
    scores = torch.ones(len(people["pred"]), dtype=torch.float64)
    limit = max(len(scores), 1)  # COCO's 20 people of an image do not hold here
    match = metrics.match_people(**people | {"area": area, "scores": scores}, sigmas=AIC.sigmas, max_people=limit)
    return of_oks(
        args, AIC, people["pred"], match, people["target"], people["visible"], people["target_image"], area,
        AIC.sigmas, names,
    )  # fmt: skip


def of_oks(
    args: argparse.Namespace,
    skeleton: Skeleton,
    pred: torch.Tensor,
    match: torch.Tensor,
    target: torch.Tensor,
    visible: torch.Tensor,
    image: torch.Tensor,
    area: torch.Tensor,
    sigmas: Sequence[float],
    names: Sequence[str],
) -> Judged:
    nobody = pred.new_full((1, *target.shape[1:]), math.nan)
    matched = torch.cat((pred, nobody))[match]  # -1 is nobody
    norm = area.clamp(min=0).sqrt()
    return Judged(
        skeleton, matched, target, visible & (norm > 0)[:, None], norm, "square root of the area", 0.3,
        metrics.oks_radius(area, sigmas), image=image, oks=True, files=files_of(args, names),
    )  # fmt: skip


def numbered(names: Sequence[str] | None) -> torch.Tensor | None:
    """A number for each different name."""
    if names is None:
        return None
    index = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([index[name] for name in names], dtype=torch.int64)


def files_of(args: argparse.Namespace, names: Sequence[str] | None) -> list[ImageFile | None]:
    """The image file of each person, which may not exist; empty if the ground truth names none."""
    if names is None:
        return []
    if args.images is not None and args.images.is_file():  # an archive, such as LSP's
        source = Source(args.images).enter("joints.mat")
        return [source.image(f"images/{name}") for name in names]
    finder = ImageFinder(args.ground_truth, args.images)
    return [finder.find(name) if name else None for name in names]
