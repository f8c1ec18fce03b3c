"""Metrics batch by batch: ``update``, ``compute``, ``reset``, as torchmetrics has them.

``compute`` merges all ranks of ``torch.distributed`` when it is initialised, so every rank must call it; a rank without
data is fine. It does not change what was accumulated.
"""

import torch
from torch import distributed

from ..skeletons import AIC, COCO, LSP
from . import distances, sticks
from ._tables import Sums, table
from .aic import aic_score
from .coco import coco_ap


class Accumulator:
    """What all have in common: a list of parts, gathered over the ranks."""

    def __init__(self, *, process_group=None):
        self.process_group = process_group
        self.reset()

    def reset(self):
        """Forgets everything."""
        self._parts = []

    def _gathered(self):
        """The parts of all ranks, in the order of the ranks. More than one rank: on the CPU."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return self._parts
        own = [tuple(None if v is None else v.cpu() for v in part) for part in self._parts]
        ranks = [None] * distributed.get_world_size(self.process_group)
        distributed.all_gather_object(ranks, own, group=self.process_group)
        return [part for parts in ranks for part in parts]


class _SumsAccumulator(Accumulator):
    """Keeps one Sums, whatever the number of people."""

    def _add(self, sums):
        if self._parts:
            old = Sums(*self._parts[0])
            if old.counts.shape != sums.counts.shape:
                raise ValueError(
                    f"{type(self).__name__}: {sums.counts.shape[0]} joints came after {old.counts.shape[0]} joints"
                )
            sums = Sums(old.values + sums.values, old.counts + sums.counts)
        self._parts = [tuple(sums)]

    def _total(self):
        parts = self._gathered()
        if not parts:
            raise RuntimeError(f"{type(self).__name__}: compute() before any update()")
        return Sums(*(torch.stack(values).sum(0) for values in zip(*parts, strict=True)))

    def compute(self):
        """The dict of the function of the same name, of everything so far."""
        return table(self._total(), **self._table)


class PCK(_SumsAccumulator):
    """Accumulates :func:`pypose_ops.metrics.pck`."""

    def __init__(self, *, threshold=0.2, exclude=(), strict=False, average="keypoints", process_group=None):
        super().__init__(process_group=process_group)
        self._thresholds, self._strict = [threshold], strict
        self._table = dict(exclude=exclude, average=average)

    def update(self, pred, target, visible=None, norm=1.0):
        sums = distances.pck_sums(type(self).__name__, pred, target, visible, norm, self._thresholds, self._strict)
        self._add(Sums(sums.values.mean(0), sums.counts))


class PCKh(PCK):
    """Accumulates :func:`pypose_ops.metrics.pckh`."""

    def __init__(self, *, threshold=0.5, exclude=distances.MPII_EXCLUDED, **options):
        super().__init__(threshold=threshold, exclude=exclude, **options)

    def update(self, pred, target, visible, head_size):
        super().update(pred, target, visible, head_size)


class AUC(PCK):
    """Accumulates :func:`pypose_ops.metrics.auc`."""

    def __init__(self, *, steps=20, exclude=(), strict=True, average="joints", process_group=None):
        super().__init__(exclude=exclude, strict=strict, average=average, process_group=process_group)
        self._thresholds = distances.auc_thresholds(steps)

    def update(self, pred, target, visible=None, norm=30.0):
        super().update(pred, target, visible, norm)


class NME(_SumsAccumulator):
    """Accumulates :func:`pypose_ops.metrics.nme`."""

    def __init__(self, *, exclude=(), average="keypoints", process_group=None):
        super().__init__(process_group=process_group)
        self._table = dict(exclude=exclude, average=average, scale=1.0)

    def update(self, pred, target, visible=None, norm=1.0):
        self._add(distances.error_sums(type(self).__name__, pred, target, visible, norm))


class EPE(NME):
    """Accumulates :func:`pypose_ops.metrics.epe`."""

    def update(self, pred, target, visible=None):
        super().update(pred, target, visible)


class PCP(_SumsAccumulator):
    """Accumulates :func:`pypose_ops.metrics.pcp`."""

    def __init__(self, *, sticks=LSP.sticks, threshold=0.5, rule="strict", average="keypoints", process_group=None):
        super().__init__(process_group=process_group)
        self._sticks, self._threshold, self._rule = sticks, threshold, rule
        self._table = dict(average=average)

    def update(self, pred, target, visible=None):
        self._add(sticks.pcp_sums(pred, target, visible, self._sticks, self._threshold, self._rule))


class _PicturesAccumulator(Accumulator):
    """Keeps all people; one update holds all people of its pictures.

    A picture that comes again, as it does where a distributed sampler repeats some to give every rank the same number,
    counts once: the first time, in the order of the ranks.
    """

    _fields = ()  # of update, in order; those in _of_pred are per prediction, the others per annotated person
    _of_pred = ()

    def _append(self, **values):
        part = tuple(None if values[name] is None else values[name].detach() for name in self._fields)
        if self._parts and [v is None for v in part] != [v is None for v in self._parts[0]]:
            raise ValueError(f"{type(self).__name__}: every update must give the same optional arguments")
        self._parts.append(part)

    def _merged(self):
        parts = [dict(zip(self._fields, part, strict=True)) for part in self._gathered()]
        if not parts:
            raise RuntimeError(f"{type(self).__name__}: compute() before any update()")
        pred_owner, target_owner = (_owners(parts, f"{side}_picture") for side in ("pred", "target"))
        pictures, number = torch.unique(
            torch.cat([part[f"{side}_picture"] for side in ("pred", "target") for part in parts]), return_inverse=True
        )
        owner = torch.cat((pred_owner, target_owner))
        first = owner.new_full((len(pictures),), len(parts)).scatter_reduce_(0, number, owner, "amin")
        kept = (first[number] == owner).split((len(pred_owner), len(target_owner)))
        merged = {}
        for name in self._fields:
            values = [part[name] for part in parts]
            mask = kept[0] if name in self._of_pred else kept[1]
            merged[name] = None if values[0] is None else torch.cat(values)[mask]
        return merged


def _owners(parts, name):
    """For every person of all parts the number of the part."""
    sizes = torch.tensor([len(part[name]) for part in parts])
    return torch.repeat_interleave(sizes).to(parts[0][name].device)


class COCOAP(_PicturesAccumulator):
    """Accumulates :func:`pypose_ops.metrics.coco_ap`; its arguments are those of ``update``."""

    _fields = ("pred", "scores", "pred_picture", "target", "visible", "area", "target_picture", "boxes", "crowd")
    _of_pred = ("pred", "scores", "pred_picture")

    def __init__(self, *, sigmas=COCO.sigmas, max_people=20, process_group=None):
        super().__init__(process_group=process_group)
        self._options = dict(sigmas=sigmas, max_people=max_people)

    def update(self, pred, scores, pred_picture, target, visible, area, target_picture, boxes=None, crowd=None):
        """Adds all people, predicted and annotated, of some pictures."""
        self._append(
            pred=pred, scores=scores, pred_picture=pred_picture, target=target, visible=visible, area=area,
            target_picture=target_picture, boxes=boxes, crowd=crowd,
        )  # fmt: skip

    def compute(self):
        """COCO's ten numbers of everything so far."""
        return coco_ap(**self._merged(), **self._options)


class AICScore(_PicturesAccumulator):
    """Accumulates :func:`pypose_ops.metrics.aic_score`; its arguments are those of ``update``."""

    _fields = ("pred", "pred_picture", "target", "visible", "area", "target_picture")
    _of_pred = ("pred", "pred_picture")

    def __init__(self, *, sigmas=AIC.sigmas, process_group=None):
        super().__init__(process_group=process_group)
        self._options = dict(sigmas=sigmas)

    def update(self, pred, pred_picture, target, visible, area, target_picture):
        """Adds all people, predicted and annotated, of some pictures."""
        self._append(
            pred=pred, pred_picture=pred_picture, target=target, visible=visible, area=area,
            target_picture=target_picture,
        )  # fmt: skip

    def compute(self):
        """The score of everything so far."""
        return aic_score(**self._merged(), **self._options)
