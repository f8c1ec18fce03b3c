"""What ``evaluate --plot`` draws: curves, similarities, errors by joint, confusions, and the worst predictions."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pypose_ops import metrics
from pypose_ops.datasets.files import write_bytes, write_json
from pypose_ops.datasets.images import ImageError
from pypose_ops.metrics.joint_errors import KINDS
from pypose_ops.skeletons import Skeleton

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .judged import Judged

COLORS = dict(zip(KINDS, ("#4caf50", "#ffd54f", "#1fa2ff", "#9c5bd0", "#e0483e"), strict=True))
WRITTEN = ("pck.png", "oks.png", "errors.png", "confusion.png", "worst.png", "errors.json")
WORST, TILE = 12, 240  # people on the contact sheet, and pixels of each


def plot(judged: Judged, folder: Path) -> None:
    """Writes the figures and their numbers, and says which."""
    people = int(judged.visible.any(1).sum())
    if not people:
        print("no people are annotated: nothing to plot")
        return
    written = [save(pck_curves(judged), folder / "pck.png")]
    count = int(judged.found.sum())
    if count:
        errors = judged.errors()
        if judged.oks:
            written.append(save(oks_histogram(errors, people), folder / "oks.png"))
        written.append(save(errors_by_joint(judged, errors), folder / "errors.png"))
        written.append(save(confusion(judged, errors), folder / "confusion.png"))
        sheet, without = worst(judged, errors)
        written.append(save(sheet, folder / "worst.png"))
        write_json(folder / "errors.json", numbers(judged, errors, people))
        print(summary(errors, count, people))
        if without:
            print(f"worst.png: {without} without an image, drawn on grey; --images FOLDER says where the images are")
        if not judged.oks:
            print("no oks.png: the OKS is for --metric coco and aic")
    else:
        print(f"none of {people} people was found: no plots of errors")
    print(f"wrote {', '.join([*written, *(['errors.json'] if count else [])])} to {folder}")


def save(figure: Figure, path: Path) -> str:
    data = io.BytesIO()
    figure.savefig(data, dpi=120, format="png")
    write_bytes(path, data.getvalue())
    return path.name


def summary(errors: metrics.JointErrors, found: int, people: int) -> str:
    """One line: the share of every kind."""
    total = max(int((errors.kinds >= 0).sum()), 1)
    shares = [f"{100 * int((errors.kinds == i).sum()) / total:.1f} % {kind}" for i, kind in enumerate(KINDS)]
    return f"joints of the {found} of {people} people who were found: {', '.join(shares)}"


def numbers(judged: Judged, errors: metrics.JointErrors, people: int) -> dict[str, Any]:
    """The content of errors.json."""
    joints = judged.skeleton.joints
    shares = [[None if math.isnan(v) else v for v in row] for row in errors.shares().tolist()]
    return {
        "people": people,
        "found": len(errors.kinds),
        "joints": {name: dict(zip(KINDS, row, strict=True)) for name, row in zip(joints, shares, strict=True)},
        "columns": [*joints, "another person", "nothing"],
        "confusion": dict(zip(joints, errors.confusion().tolist(), strict=True)),
    }


def columns(skeleton: Skeleton) -> list[tuple[str, tuple[int, ...]]]:
    """The lines of a plot: the columns of the data set's tables, or left and right of each joint together."""
    if skeleton.groups:
        return list(skeleton.groups)
    together: dict[str, list[int]] = {}
    for k, name in enumerate(skeleton.joints):
        together.setdefault(name.removeprefix("left_").removeprefix("right_"), []).append(k)
    return [(name, tuple(members)) for name, members in together.items()]


def new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def pck_curves(judged: Judged) -> Figure:
    """PCK of all annotated people over the threshold, a line for every column of the tables."""
    thresholds = np.linspace(0, judged.limit, 51).tolist()
    result = metrics.pdj(
        judged.pred,
        judged.target,
        judged.norm,
        visible=judged.visible,
        thresholds=thresholds,
        exclude=judged.exclude,
        strict=judged.strict,
    )
    figure = new_figure(7, 4.5)
    axes = figure.add_subplot(xlabel=f"threshold, of the {judged.unit}", ylabel="PCK, %", ylim=(0, 100))
    for name, members in columns(judged.skeleton):
        axes.plot(thresholds, result["per_joint"][:, list(members)].nanmean(1).numpy(), label=name.replace("_", " "))
    axes.plot(thresholds, result["mean"].numpy(), color="black", linewidth=2.5, label="mean")
    axes.set_xlim(0, judged.limit)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def oks_histogram(errors: metrics.JointErrors, people: int) -> Figure:
    """The OKS of the people who were found."""
    oks = errors.similarity.nanmean(1)
    figure = new_figure(6, 3.5)
    axes = figure.add_subplot(xlabel="OKS", ylabel="people", xlim=(0, 1))
    axes.hist(oks.numpy(), bins=20, range=(0, 1), color="#1fa2ff", edgecolor="white")
    axes.axvline(oks.median().item(), color="black", linestyle="--", label=f"median {oks.median():.2f}")
    axes.set_title(f"{len(oks)} of {people} people were found", fontsize=10)
    axes.legend()
    return figure


def errors_by_joint(judged: Judged, errors: metrics.JointErrors) -> Figure:
    """The shares of the kinds of errors of each joint, and its distances."""
    found = judged.found
    distance = (judged.pred[found] - judged.target[found]).norm(dim=-1).double() / judged.norm[found, None]
    distance = distance.masked_fill((errors.kinds < 0) | ~distance.isfinite(), math.nan)
    shares = 100 * errors.shares().nan_to_num()
    names = [name.replace("_", " ") for name in judged.skeleton.joints]
    rows = np.arange(len(names))
    figure = new_figure(10, 1.4 + 0.26 * len(names))
    bars, dots = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    left = torch.zeros(len(names), dtype=torch.float64)
    for kind, values in zip(KINDS, shares.T, strict=True):
        bars.barh(rows, values.numpy(), left=left.numpy(), color=COLORS[kind], label=kind)
        left = left + values
    bars.set(xlim=(0, 100), xlabel="share of the joint's predictions, %", yticks=rows, ylim=(len(names) - 0.5, -0.5))
    bars.set_yticklabels(names)
    bars.legend(ncols=len(KINDS), loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=8, frameon=False)
    for quantile, marker, label in ((0.5, "o", "median"), (0.9, "|", "90 %")):
        dots.plot(distance.nanquantile(quantile, dim=0).numpy(), rows, marker, color="black", label=label)
    dots.set_xlabel(f"distance, of the {judged.unit}")
    dots.set_xlim(left=0)
    dots.grid(axis="x", alpha=0.3)
    dots.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=8, frameon=False)
    return figure


def confusion(judged: Judged, errors: metrics.JointErrors) -> Figure:
    """On which annotated joint the predictions of each joint lie."""
    from matplotlib.colors import PowerNorm

    count = errors.confusion().double()
    share = 100 * count / count.sum(1, keepdim=True).clamp(min=1)
    names = [name.replace("_", " ") for name in judged.skeleton.joints]
    size = 2.6 + 0.36 * len(names)
    figure = new_figure(size + 0.8, size)
    axes = figure.add_subplot(xlabel="lies on", ylabel="prediction of")
    axes.imshow(share.numpy(), cmap="Blues", norm=PowerNorm(0.5, 0, 100))  # the square root shows rare confusions
    axes.axvline(len(names) - 0.5, color="black", linewidth=0.8)
    for row, column in (share > 0.5).nonzero().tolist():
        value = share[row, column].item()
        color = "white" if value > 40 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(len(names) + 2), [*names, "another person", "nothing"], rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title("% of a joint's predictions", fontsize=10)
    return figure


def worst(judged: Judged, errors: metrics.JointErrors) -> tuple[Figure, int]:
    """The people whose joints are least similar to their annotation; and how many are drawn without their image."""
    similarity = errors.similarity.nanmean(1).nan_to_num(nan=math.inf)
    rows = torch.nonzero(judged.found)[:, 0]
    order = torch.argsort(similarity, stable=True)[:WORST]
    order = order[similarity[order].isfinite()]
    width = min(4, max(len(order), 1))
    height = -(-len(order) // width) or 1
    figure = new_figure(2.4 * width, 2.75 * height)
    without = 0
    panels = figure.subplots(height, width, squeeze=False).ravel()
    for panel in panels:
        panel.axis("off")
    for panel, number in zip(panels, order.tolist(), strict=False):
        row = int(rows[number])
        tile, drawn = portrait(judged, row)
        without += not drawn
        kinds = errors.kinds[number]
        bad = [counted(int((kinds == k).sum()), KINDS[k]) for k in (2, 3, 4) if (kinds == k).any()]
        panel.imshow(tile)
        name = "OKS" if judged.oks else "similarity"
        panel.set_title(f"{name} {similarity[number]:.2f}\n{', '.join(bad) or 'jitter'}", fontsize=8)
    caption = "prediction: left orange, right blue; annotation: white"
    figure.suptitle(caption, fontsize=9)
    return figure, without


def counted(count: int, kind: str) -> str:
    """``2 misses``."""
    return f"{count} {kind}{'' if count == 1 else 'es' if kind.endswith('s') else 's'}"


def portrait(judged: Judged, row: int) -> tuple[Any, bool]:
    """A person's tile with the annotation and the prediction, and whether the image was there."""
    from PIL import Image, ImageDraw

    from pypose_ops import viz

    target = judged.target[row].double().masked_fill(~judged.visible[row, :, None], math.nan) - judged.origin
    pred = judged.pred[row].double() - judged.origin
    seen = target[target.isfinite().all(1)]
    low, high = seen.amin(0), seen.amax(0)
    middle, half = (low + high) / 2, max(float((high - low).max()) * 0.75, 8.0)
    scale = TILE / (2 * half)
    corner = middle - half
    try:
        file = judged.files[row] if judged.files else None
        image = None if file is None else file.upright()
    except (ImageError, OSError, KeyError):
        image = None
    if image is None:
        tile = Image.new("RGB", (TILE, TILE), (96, 96, 96))
    else:
        box = (*(corner + 0.5).tolist(), *(corner + 2 * half + 0.5).tolist())  # PIL puts pixel centres at halves
        tile = image.transform((TILE, TILE), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
    truth, drawn = ((points - corner) * scale - 0.5 for points in (target, pred))
    tile = viz.draw_pose(tile, drawn, None, judged.skeleton)
    pen = ImageDraw.Draw(tile)
    for a, b in judged.skeleton.edges:
        if truth[[a, b]].isfinite().all():
            pen.line([tuple(truth[a].tolist()), tuple(truth[b].tolist())], fill="white", width=1)
    for x, y in truth[truth.isfinite().all(1)].tolist():
        pen.ellipse([x - 2, y - 2, x + 2, y + 2], outline="white")
    return tile, image is not None
