"""Metrics over batches with ``update``, ``compute`` and ``reset``, as in torchmetrics.

If ``torch.distributed`` is initialised, ``compute`` merges all ranks, so every rank must call it, also without data.
It does not change the accumulated state.
"""

from collections.abc import Sequence

import torch
from torch import distributed
from torch.distributed import ProcessGroup

from ..skeletons import AIC, COCO, LSP
from . import distances
from . import sticks as sticks_of
from ._tables import JointScores, Sums, table
from .aic import AICScores, aic_score
from .coco import CocoScores, coco_ap


class Accumulator:
    """The base of all: a list of parts, gathered over the ranks."""

    def __init__(self, *, process_group: ProcessGroup | None = None) -> None:
        self.process_group = process_group
        self.reset()

    def reset(self) -> None:
        """Clears the accumulated state."""
        self._parts: list[tuple[torch.Tensor | None, ...]] = []

    def _gathered(self) -> list[tuple[torch.Tensor | None, ...]]:
        """The parts of all ranks, in rank order; on the CPU if there are several."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return self._parts
        own = [tuple(None if v is None else v.cpu() for v in part) for part in self._parts]
        ranks = [None] * distributed.get_world_size(self.process_group)
        distributed.all_gather_object(ranks, own, group=self.process_group)
        return [part for parts in ranks for part in parts]


class _SumsAccumulator(Accumulator):
    """Accumulates sums, in constant memory."""

    def _add(self, sums: Sums) -> None:
        if self._parts:
            old = Sums(*self._parts[0])
            if old.counts.shape != sums.counts.shape:
                raise ValueError(
                    f"{type(self).__name__}: {sums.counts.shape[0]} joints came after {old.counts.shape[0]} joints"
                )
            sums = Sums(old.values + sums.values, old.counts + sums.counts)
        self._parts = [tuple(sums)]

    def _total(self) -> Sums:
        parts = self._gathered()
        if not parts:
            raise RuntimeError(f"{type(self).__name__}: compute() before any update()")
        return Sums(*(torch.stack(values).sum(0) for values in zip(*parts, strict=True)))

    def compute(self) -> JointScores:
        """Returns the scores of the function of the same name for all data so far."""
        return table(self._total(), **self._table)


class _HitsAccumulator(_SumsAccumulator):
    """Counts hits at several thresholds and averages over them."""

    def __init__(
        self,
        thresholds: Sequence[float],
        exclude: Sequence[int],
        strict: bool,
        average: str,
        process_group: ProcessGroup | None,
    ) -> None:
        super().__init__(process_group=process_group)
        self._thresholds, self._strict = thresholds, strict
        self._table = dict(exclude=exclude, average=average)

    def _add_hits(
        self, pred: torch.Tensor, target: torch.Tensor, visible: torch.Tensor | None, norm: torch.Tensor | float
    ) -> None:
        sums = distances.pck_sums(type(self).__name__, pred, target, visible, norm, self._thresholds, self._strict)
        self._add(Sums(sums.values.mean(0), sums.counts))


class PCK(_HitsAccumulator):
    """Accumulates :func:`pypose_ops.metrics.pck`."""

    def __init__(
        self,
        *,
        threshold: float = 0.2,
        exclude: Sequence[int] = (),
        strict: bool = False,
        average: str = "keypoints",
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__([threshold], exclude, strict, average, process_group)

    def update(
        self,
        pred: torch.Tensor,
        target: torch.Tensor,
        *,
        visible: torch.Tensor | None = None,
        norm: torch.Tensor | float = 1.0,
    ) -> None:
        """Adds people; arguments as in :func:`pypose_ops.metrics.pck`."""
        self._add_hits(pred, target, visible, norm)


class PCKh(_HitsAccumulator):
    """Accumulates :func:`pypose_ops.metrics.pckh`."""

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        exclude: Sequence[int] = distances.MPII_EXCLUDED,
        strict: bool = False,
        average: str = "keypoints",
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__([threshold], exclude, strict, average, process_group)

    def update(
        self,
        pred: torch.Tensor,
        target: torch.Tensor,
        head_size: torch.Tensor | float,
        *,
        visible: torch.Tensor | None = None,
    ) -> None:
        """Adds people; arguments as in :func:`pypose_ops.metrics.pckh`."""
        self._add_hits(pred, target, visible, head_size)


class AUC(_HitsAccumulator):
    """Accumulates :func:`pypose_ops.metrics.auc`."""

    def __init__(
        self,
        *,
        steps: int = 20,
        exclude: Sequence[int] = (),
        strict: bool = True,
        average: str = "joints",
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(distances.auc_thresholds(steps), exclude, strict, average, process_group)

    def update(
        self,
        pred: torch.Tensor,
        target: torch.Tensor,
        *,
        visible: torch.Tensor | None = None,
        norm: torch.Tensor | float = 30.0,
    ) -> None:
        """Adds people; arguments as in :func:`pypose_ops.metrics.auc`."""
        self._add_hits(pred, target, visible, norm)


class _ErrorsAccumulator(_SumsAccumulator):
    """Sums errors."""

    def __init__(
        self, *, exclude: Sequence[int] = (), average: str = "keypoints", process_group: ProcessGroup | None = None
    ) -> None:
        super().__init__(process_group=process_group)
        self._table = dict(exclude=exclude, average=average, scale=1.0)


class NME(_ErrorsAccumulator):
    """Accumulates :func:`pypose_ops.metrics.nme`."""

    def update(
        self,
        pred: torch.Tensor,
        target: torch.Tensor,
        *,
        visible: torch.Tensor | None = None,
        norm: torch.Tensor | float = 1.0,
    ) -> None:
        """Adds people; arguments as in :func:`pypose_ops.metrics.nme`."""
        self._add(distances.error_sums(type(self).__name__, pred, target, visible, norm))


class EPE(_ErrorsAccumulator):
    """Accumulates :func:`pypose_ops.metrics.epe`."""

    def update(self, pred: torch.Tensor, target: torch.Tensor, *, visible: torch.Tensor | None = None) -> None:
        """Adds people; arguments as in :func:`pypose_ops.metrics.epe`."""
        self._add(distances.error_sums("EPE", pred, target, visible, 1.0))


class PCP(_SumsAccumulator):
    """Accumulates :func:`pypose_ops.metrics.pcp`."""

    def __init__(
        self,
        *,
        sticks: Sequence[sticks_of.Stick] = LSP.sticks,
        threshold: float = 0.5,
        rule: str = "strict",
        average: str = "keypoints",
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(process_group=process_group)
        self._sticks, self._threshold, self._rule = sticks, threshold, rule
        self._table = dict(average=average)

    def update(self, pred: torch.Tensor, target: torch.Tensor, *, visible: torch.Tensor | None = None) -> None:
        """Adds people; arguments as in :func:`pypose_ops.metrics.pcp`."""
        self._add(sticks_of.pcp_sums(pred, target, visible, self._sticks, self._threshold, self._rule))


class _ImagesAccumulator(Accumulator):
    """Keeps all people; an update must hold all people of its images.

    Repeated images, which distributed samplers add for an equal number per rank, count once: the first, in rank order.
    """

    _fields: tuple[
        str, ...
    ] = ()  # arguments of update, in order; those in _of_pred are per prediction, the others per annotated person
    _of_pred: tuple[str, ...] = ()

    def _append(self, **values: torch.Tensor | None) -> None:
        part = tuple(None if values[name] is None else values[name].detach() for name in self._fields)
        if self._parts and [v is None for v in part] != [v is None for v in self._parts[0]]:
            raise ValueError(f"{type(self).__name__}: every update must give the same optional arguments")
        self._parts.append(part)

    def _merged(self) -> dict[str, torch.Tensor | None]:
        parts = [dict(zip(self._fields, part, strict=True)) for part in self._gathered()]
        if not parts:
            raise RuntimeError(f"{type(self).__name__}: compute() before any update()")
        pred_owner, target_owner = (_owners(parts, f"{side}_image") for side in ("pred", "target"))
        images, number = torch.unique(
            torch.cat([part[f"{side}_image"] for side in ("pred", "target") for part in parts]), return_inverse=True
        )
        owner = torch.cat((pred_owner, target_owner))
        first = owner.new_full((len(images),), len(parts)).scatter_reduce_(0, number, owner, "amin")
        kept = (first[number] == owner).split((len(pred_owner), len(target_owner)))
        merged = {}
        for name in self._fields:
            values = [part[name] for part in parts]
            mask = kept[0] if name in self._of_pred else kept[1]
            merged[name] = None if values[0] is None else torch.cat(values)[mask]
        return merged


def _owners(parts: Sequence[dict[str, torch.Tensor | None]], name: str) -> torch.Tensor:
    """The index of the part of every person."""
    sizes = torch.tensor([len(part[name]) for part in parts])
    return torch.repeat_interleave(sizes).to(parts[0][name].device)


class COCOAP(_ImagesAccumulator):
    """Accumulates :func:`pypose_ops.metrics.coco_ap`; its arguments are those of ``update``."""

    _fields = ("pred", "scores", "pred_image", "target", "area", "target_image", "visible", "boxes", "crowd")
    _of_pred = ("pred", "scores", "pred_image")

    def __init__(
        self, *, sigmas: Sequence[float] = COCO.sigmas, max_people: int = 20, process_group: ProcessGroup | None = None
    ) -> None:
        super().__init__(process_group=process_group)
        self._options = dict(sigmas=sigmas, max_people=max_people)

    def update(
        self,
        pred: torch.Tensor,
        scores: torch.Tensor,
        pred_image: torch.Tensor,
        target: torch.Tensor,
        area: torch.Tensor,
        target_image: torch.Tensor,
        *,
        visible: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        crowd: torch.Tensor | None = None,
    ) -> None:
        """Adds all people, predicted and annotated, of some images."""
        self._append(
            pred=pred, scores=scores, pred_image=pred_image, target=target, area=area, target_image=target_image,
            visible=visible, boxes=boxes, crowd=crowd,
        )  # fmt: skip

    def compute(self) -> CocoScores:
        """Returns COCO's ten numbers for all data so far."""
        return coco_ap(**self._merged(), **self._options)


class AICScore(_ImagesAccumulator):
    """Accumulates :func:`pypose_ops.metrics.aic_score`; its arguments are those of ``update``."""

    _fields = ("pred", "pred_image", "target", "area", "target_image", "visible")
    _of_pred = ("pred", "pred_image")

    def __init__(self, *, sigmas: Sequence[float] = AIC.sigmas, process_group: ProcessGroup | None = None) -> None:
        super().__init__(process_group=process_group)
        self._options = dict(sigmas=sigmas)

    def update(
        self,
        pred: torch.Tensor,
        pred_image: torch.Tensor,
        target: torch.Tensor,
        area: torch.Tensor,
        target_image: torch.Tensor,
        *,
        visible: torch.Tensor | None = None,
    ) -> None:
        """Adds all people, predicted and annotated, of some images."""
        self._append(
            pred=pred, pred_image=pred_image, target=target, area=area, target_image=target_image, visible=visible
        )

    def compute(self) -> AICScores:
        """Returns the score for all data so far."""
        return aic_score(**self._merged(), **self._options)
