"""A spatial model over the heatmaps of a trained system: where does it help?

python benchmarks/mrf_over_detector.py --weights RUN/weights.safetensors --data lsp:lsp_dataset.zip [--json OUT]

The priors are histograms of the displacements between the joints of the training people. Graph, smoothing, floor and
weight are those with the best PCK@0.2 on the 200 people that train holds out; the test people are scored once, by the
highest pixel of each map before and after the messages.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import NamedTuple

import torch

from pypose_ops import decode_heatmaps, geometry
from pypose_ops.datasets import hold_out, open_dataset
from pypose_ops.models.modules.joint_graphs import full_edges, limb_edges
from pypose_ops.models.modules.spatial_model import SpatialModel
from pypose_ops.models.training.crops import Crops
from pypose_ops.models.training.loading import People, eval_loader
from pypose_ops.models.training.scores import score
from pypose_ops.models.weights.files import open_weights, skeleton_of

SMOOTH = (8, 32, 128)  # deviations of 2, 4 and 8 heatmap pixels
FLOORS = (0.001, 0.01, 0.1)
WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Seen(NamedTuple):
    """What a system sees of N people, and what is there.

    Maps (N, K, h, w) of its last stage, transforms (N, 2, 3) of their pixels to image pixels; joints (N, K, 2) in
    pixels of the maps and whether they are labelled and in the crop (N, K); joints and labels in image pixels.
    """

    maps: torch.Tensor
    to_image: torch.Tensor
    joints: torch.Tensor
    known: torch.Tensor
    keypoints: torch.Tensor
    visible: torch.Tensor


@torch.no_grad()
def seen_by(system, skeleton, dataset):
    """Seen of upright crops."""
    people, crops, parts = People(dataset), Crops(system, skeleton), []
    for loaded in eval_loader(people, 32):
        batch, transforms = crops(loaded)
        maps = system.heatmaps(batch.images)[-1].float().contiguous()
        codec = system.codec(batch.images, maps)
        to_input = codec.to_input(maps.device).expand(len(maps), 2, 3)
        to_image = geometry.compose_transforms(transforms, to_input)
        joints = codec.to_heatmap(batch.keypoints)
        parts.append(Seen(maps, to_image, joints, batch.visible, loaded.keypoints, loaded.visible))
    return Seen(*map(torch.cat, zip(*parts, strict=True)))


def scores_of(maps, seen, skeleton):
    """PCK and PCP of the highest pixels."""
    coords = decode_heatmaps(maps, refine=None, transform=seen.to_image).coords
    return score(coords, seen.keypoints, seen.visible, skeleton)


@torch.no_grad()
def evidence_and_messages(graph, smooth, floor, train, seen):
    """The two terms (N, K, h, w) of the energies, see SpatialModel."""
    size, joints = tuple(seen.maps.shape[-2:]), seen.maps.shape[1]
    model = SpatialModel.from_displacements(
        train.joints, train.known, graph, size, joints, smooth=smooth, floor=floor, method="auto"
    )
    return model.evidence(seen.maps), torch.cat([model.messages(maps) for maps in seen.maps.split(32)])


def after(weight, evidence, messages):
    """Maps whose highest pixels are those of the energies."""
    energies = evidence + weight * messages
    return (energies - energies.amax((-2, -1), keepdim=True)).exp()


def chosen(skeleton, train, held_out):
    """The settings with the best PCK on the held-out people, and all of their PCK."""
    graphs = {"limbs": limb_edges(skeleton), "full": full_edges(range(len(skeleton)))}
    found = {}
    for name, smooth, floor in itertools.product(graphs, SMOOTH, FLOORS):
        terms = evidence_and_messages(graphs[name], smooth, floor, train, held_out)
        for weight in WEIGHTS:
            stage = scores_of(after(weight, *terms), held_out, skeleton)
            found[name, smooth, floor, weight] = stage["pck"]["mean"]
            print(*(name, smooth, floor, weight), stage["pck"]["mean"], flush=True)
    best = max(found, key=found.get)
    return best, graphs[best[0]], found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True, metavar="lsp:PATH")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    system, info = open_weights(args.weights)
    skeleton = skeleton_of(info)
    first, held_out = hold_out(open_dataset(args.data, "train", skeleton), 200, 0)
    test = open_dataset(args.data, "test", skeleton)
    train, held_out, test = (seen_by(system, skeleton, part) for part in (first, held_out, test))
    best, graph, found = chosen(skeleton, train, held_out)
    terms = evidence_and_messages(graph, best[1], best[2], train, test)
    results = {
        "held out before": scores_of(held_out.maps, held_out, skeleton)["pck"]["mean"],
        "settings": dict(zip(("graph", "smooth", "floor", "weight"), best, strict=True)),
        "held out after": found[best],
        "test before": scores_of(test.maps, test, skeleton),
        "test after": scores_of(after(best[3], *terms), test, skeleton),
    }
    for name in ("test before", "test after"):
        results[name].pop("curve")
    text = json.dumps(results, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
