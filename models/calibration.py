"""Calibration: scores as the probability that a joint is near its prediction."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from pypose_ops import metrics
from pypose_ops.skeletons import Skeleton

from .systems.system import System

THRESHOLD = 0.2  # of the torso diameter: nearer joints count as found, as in PCK@0.2
PRIOR = 4.0  # the weight of the fit of all joints in that of one, in people


@dataclass(frozen=True)
class Calibration:
    """The probability of a joint with score s is ``sigmoid(logit(s) / temperature + bias)``.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, plus a bias: the height of a peak measures how
    precisely the joint is localised, which is less than the probability that it is near.

    Attributes:
        temperature, bias (tuple[float, ...]): of each joint.
    """

    temperature: tuple[float, ...]
    bias: tuple[float, ...]

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores ``(..., K)`` from 0 to 1 as probabilities that the joint is within 0.2 torsos."""
        inverse = 1 / torch.tensor(self.temperature, dtype=scores.dtype, device=scores.device)
        bias = torch.tensor(self.bias, dtype=scores.dtype, device=scores.device)
        return (scores.logit(1e-6) * inverse + bias).sigmoid()

    def as_info(self) -> dict[str, list[float]]:
        """Encodes the calibration for the metadata of a weight file."""
        return {name: [round(v, 5) for v in values] for name, values in asdict(self).items()}


def calibration_of(info: dict[str, Any]) -> Calibration | None:
    """Reads the calibration from the metadata of a weight file; None if there is none."""
    said = info.get("calibration")
    return None if said is None else Calibration(tuple(said["temperature"]), tuple(said["bias"]))


def fit_calibration(scores: torch.Tensor, found: torch.Tensor, counted: torch.Tensor) -> Calibration:
    """Fits a logistic regression per joint, shrunk towards that of all joints with the weight of ``PRIOR`` people.

    Args:
        scores (Tensor): ``(N, K)`` from 0 to 1.
        found (Tensor): ``(N, K)`` bool: the joint is near its label.
        counted (Tensor): ``(N, K)`` bool: the joint is labelled.
    """
    logits, target, weight = scores.double().logit(1e-6), found.double(), counted.double()
    shared = _logistic(
        logits.reshape(-1, 1), target.reshape(-1, 1), weight.reshape(-1, 1), torch.tensor([[1.0, 0.0]]), 1e-6
    )
    fitted = _logistic(logits, target, weight, shared.expand(scores.shape[1], 2), PRIOR)
    slope = fitted[:, 0].clamp(min=0.05)  # the slope stays positive
    return Calibration(tuple((1 / slope).tolist()), tuple(fitted[:, 1].tolist()))


def _logistic(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, prior: torch.Tensor, strength: float
) -> torch.Tensor:
    """Slope and bias of each column, ``(K, 2)``, by Newton's method with step halving."""
    prior = prior.double()
    theta = prior.clone()
    inputs = torch.stack((logits, torch.ones_like(logits)), -1)

    def loss(values: torch.Tensor) -> torch.Tensor:
        z = (inputs * values).sum(-1)
        each = torch.nn.functional.binary_cross_entropy_with_logits(z, target, weight=weight, reduction="none")
        return each.sum(0) + strength / 2 * (values - prior).square().sum(-1)

    for _ in range(50):
        p = (inputs * theta).sum(-1).sigmoid()
        gradient = ((p - target) * weight)[..., None].mul(inputs).sum(0) + strength * (theta - prior)
        curvature = (weight * p * (1 - p))[..., None, None] * inputs[..., :, None] * inputs[..., None, :]
        hessian = curvature.sum(0) + strength * torch.eye(2, dtype=torch.float64)
        step, before = torch.linalg.solve(hessian, gradient[..., None])[..., 0], loss(theta)
        for _ in range(20):
            worse = loss(theta - step) > before
            if not worse.any():
                break
            step = torch.where(worse[:, None], step / 2, step)
        theta = theta - step
        if step.abs().max() < 1e-8:
            break
    return theta


def expected_calibration_error(probabilities: torch.Tensor, found: torch.Tensor, bins: int = 15) -> float:
    """Expected calibration error: the mean gap between probability and accuracy over bins, weighted by their counts.

    Args:
        probabilities (Tensor): any shape.
        found (Tensor): bool, of the same.
        bins (int): of equal width from 0 to 1.
    """
    where = (probabilities * bins).long().clamp(0, bins - 1).flatten()
    size = torch.zeros(bins, dtype=torch.float64)
    gap = size.clone().index_add(0, where, (probabilities.flatten().double() - found.flatten().double()))
    return float(gap.abs().sum() / max(where.numel(), 1))


def found_joints(
    pred: torch.Tensor, keypoints: torch.Tensor, visible: torch.Tensor, torso: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which joints are near their labels, and which count (labelled, of people with a torso): ``(N, K)`` bool each."""
    labelled = visible > 0
    counted = labelled & labelled[:, list(torso)].all(1, keepdim=True)
    size = metrics.torso_size(keypoints, torso)
    return ((pred - keypoints).norm(dim=-1) <= THRESHOLD * size[:, None]) & counted, counted


def calibrate(system: System, skeleton: Skeleton, people: Any, **options: Any) -> Calibration:
    """Calibrates the last stage of a system on people that it was not trained on.

    Args:
        system (System), skeleton (Skeleton), people (People), options: as :func:`.scores.predict_people`.
    """
    from .training.scores import pck_norm, predict_people, torso_of

    coords, scores, index, _ = predict_people(system, skeleton, people, **options)
    keypoints, visible, torso = people.keypoints[index], people.visible[index], torso_of(skeleton)
    if torso is not None:
        found, counted = found_joints(coords[-1], keypoints, visible, torso)
    else:
        size = pck_norm(keypoints, visible, skeleton)
        counted = (visible > 0) & (size > 0)[:, None]
        found = ((coords[-1] - keypoints).norm(dim=-1) <= THRESHOLD * size[:, None]) & counted
    return fit_calibration(scores[-1], found, counted)
