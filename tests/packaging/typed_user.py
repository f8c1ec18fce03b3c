"""A user's script that calls every operator, for mypy --strict (test_types.py, scripts/check_types.py)."""

import torch
from typing_extensions import assert_type

import pypose_ops
from pypose_ops import codecs, geometry, metrics, models, skeletons

Tensor = torch.Tensor


def draw(keypoints: Tensor, pred: Tensor) -> list[Tensor]:
    limbs = skeletons.COCO.edges
    maps = pypose_ops.gaussian_heatmaps(keypoints, 2.0, (64, 48), visible=None, truncate=3.0, dtype=torch.float16)
    loss = pypose_ops.heatmap_mse_loss(pred, keypoints, 2.0, weight=torch.ones(1, 17), reduction="none")
    fields = pypose_ops.part_affinity_fields(keypoints, limbs, 1.0, (64, 48), combine="sum", profile="sleap")
    masks = pypose_ops.limb_masks(keypoints, limbs, 1.0, (64, 48))
    offsets = pypose_ops.offset_heatmaps(keypoints, 3.0, (64, 48), combine="last")
    x, y = pypose_ops.simcc_labels(keypoints, (6.0, 4.0), (256, 192), center="exact")
    return [maps, loss, fields, masks, offsets, x, y]


def decode(maps: Tensor, flipped: Tensor, transform: Tensor) -> list[Tensor]:
    coords, scores = pypose_ops.decode_heatmaps(
        maps, flipped=flipped, flip_pairs=skeletons.COCO.flip_pairs, transform=transform
    )
    plain = pypose_ops.decode_heatmaps(maps, refine=None, compat=None, max_offset=None)
    assert_type(plain, pypose_ops.Peaks)
    sure = pypose_ops.decode_heatmaps(maps, refine="dark", return_covariance=True)
    assert_type(sure, pypose_ops.PeaksWithCovariance)
    mean = pypose_ops.soft_argmax(maps, window=7)
    assert_type(mean, torch.Tensor)
    soft = pypose_ops.soft_argmax(maps, return_variance=True)
    assert_type(soft, pypose_ops.SoftPeaks)
    simcc = pypose_ops.decode_simcc(maps[:, :, 0], maps[:, :, 1], refine="dark", sigma=(6.0, 6.0))
    assert_type(simcc, pypose_ops.Peaks)
    return [coords, scores, plain.coords, sure.covariance, mean, soft.coords, simcc.scores]


def group(maps: Tensor, fields: Tensor) -> list[int]:
    peaks = pypose_ops.find_peaks(maps, threshold=0.1, max_peaks=16)
    assert_type(peaks, pypose_ops.LocalPeaks)
    scores = pypose_ops.score_limbs(fields, peaks, skeletons.COCO.edges, rule="openpose")
    people = pypose_ops.group_people(peaks, scores, skeletons.COCO.edges, assignment="greedy")
    assert_type(people, pypose_ops.People)
    tagged = pypose_ops.group_by_tags(peaks, maps)
    area = torch.ones(people.coords.shape[1])
    alike = pypose_ops.oks(people.coords[0], tagged.coords[0], area)
    kept = pypose_ops.oks_nms(people.coords[0], people.scores[0], area, threshold=0.5)
    assert_type(kept, pypose_ops.NmsResult)
    return [int(people.counts[0]), int(kept.mask.sum()), int(alike.numel())]


def cascade(image: Tensor, boxes: Tensor, unary: Tensor) -> list[Tensor]:
    center, scale = geometry.box_to_center_and_scale(boxes, (256, 192))
    transforms = geometry.box_to_transform(center, scale, 0.0, (256, 192), align="center")
    patches = pypose_ops.crop_patches(image, transforms, (256, 192), mean=(0.0,), std=(1.0,), antialias=True)
    votes = pypose_ops.box_vote(boxes[None], torch.ones(1, len(boxes), 1), (64, 48))
    energy = pypose_ops.mrf_message_passing(unary, torch.ones(1, 127, 95), torch.ones(1), [(0, 1)])
    springs = torch.tensor([[1.0, 0.0, 0.1, 0.1]])
    peaks, max_marginals = pypose_ops.max_product(unary, [(0, 1)], springs)
    assert_type(peaks, pypose_ops.Peaks)
    log_marginals, log_partition = pypose_ops.sum_product(unary, [(0, 1)], springs)
    return [patches, votes, energy, peaks.coords, max_marginals, log_marginals, log_partition]


def train(keypoints: Tensor) -> float:
    codec = codecs.MSRAHeatmap(input_size=(192, 256), heatmap_size=(48, 64), sigma=2.0, unbiased=True)
    maps, weights = codec.encode(keypoints)
    coords, scores = codec.decode(maps)
    system = models.build("stacked_hourglass", num_joints=17, preset="compact")
    assert_type(system, models.System)
    score = metrics.pck(coords, keypoints, visible=weights > 0, norm=30.0)
    assert_type(score, metrics.JointScores)
    return float(score["mean"]) + float(scores.mean())
