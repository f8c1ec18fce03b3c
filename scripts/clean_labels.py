"""Finds labels that a stronger model disagrees with: python scripts/clean_labels.py DATA --weights FILE --out FILE.

DATA is FORMAT:PATH as in train, such as lspet:lspet_dataset.zip; FILE weights with calibrated scores that were not
trained on it, such as lsp14. Limbs that fit with left and right exchanged are exchanged; joints that the model is sure
of and that are over half a torso away do not count. pypose-ops train --corrections FILE uses what is written.
"""

import argparse
import json
from pathlib import Path

import torch

from pypose_ops.datasets import open_dataset
from pypose_ops.models.calibration import calibration_of
from pypose_ops.models.training.corrections import as_json, find_corrections
from pypose_ops.models.training.loading import People
from pypose_ops.models.training.scores import predict_people
from pypose_ops.models.weights.files import open_weights
from pypose_ops.skeletons import SKELETONS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--weights", default="lsp14")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, help="the first so many alone")
    args = parser.parse_args()
    system, info = open_weights(args.weights)
    calibration = calibration_of(info)
    if calibration is None:
        parser.error(f"{args.weights} has no calibrated scores, expected weights of train")
    dataset = open_dataset(args.data, "train", SKELETONS[info["skeleton"]])
    dataset.samples = dataset.samples[: args.people]
    people = People(dataset)
    pred, scores, index, bad = predict_people(system, dataset.skeleton, people)
    kept = set(index.tolist())
    dataset.samples = [sample for i, sample in enumerate(dataset.samples) if i in kept]
    visible, sure = people.visible[index], calibration.probabilities(scores[-1])
    exchanged, mask = find_corrections(people.keypoints[index], visible, pred[-1], sure, dataset.skeleton)
    args.out.write_text(json.dumps(as_json(dataset, exchanged, mask), indent=0) + "\n")
    limbs = {limb: f"{int(rows.sum())} {limb} exchanged" for limb, rows in exchanged.items()}
    labelled = int((visible > 0).sum())
    print(f"{len(index)} people: {', '.join(limbs.values())}, {int(mask.sum())} of {labelled} joints masked", end="")
    print(f"; {len(bad)} images could not be read" if bad else "")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
