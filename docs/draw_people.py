"""Draws docs/people.png: people found in OpenPose's maps over the annotated ones.  python docs/draw_people.py DATA

DATA is a folder with heatmaps/openpose_thin_coco_images.npz. The images themselves are not drawn: the background is
the highest of the heatmaps.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch

from pypose_ops import oks
from pypose_ops.cli.people import find_people
from pypose_ops.skeletons import COCO, joint_map

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ANNOTATED, FOUND, EXTRA = "#000000", "#d2521e", "#7a7a7a"


def matched(coords, truth, boxes, joints):
    """For every annotated person the OKS of the best found, and who that is. COCO's joints and constants."""
    width, height = boxes[:, 2:].unbind(1)
    visible = truth[..., 2] > 0
    # OpenPose has a neck, which COCO does not annotate.
    index = torch.tensor([k if k >= 0 else 0 for k in joint_map(joints, COCO.joints)])
    similarity = oks(coords[:, index], truth[:, index, :2], 0.53 * width * height, visible=visible[:, index])
    return similarity.max(0)


def draw_limbs(axis, pose, limbs, **style):
    for a, b in limbs:
        axis.plot(pose[[a, b], 0], pose[[a, b], 1], solid_capstyle="round", **style)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    file = np.load(parser.parse_args().data / "heatmaps" / "openpose_thin_coco_images.npz", allow_pickle=False)
    joints, limbs = file["joint_names"].tolist(), file["limbs"].tolist()
    images = int(file["n_images"])
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4))
    scores = []
    for i, axis in zip(range(images), axes.flat, strict=True):
        heat, paf = (torch.from_numpy(file[f"{name}_{i}"]) for name in ("heat", "paf"))
        people = find_people(heat[None], paf[None], limbs, file["paf_channels"].tolist())
        to_image = torch.from_numpy(file[f"hm2img_{i}"])
        coords = people.coords[0, : people.counts[0]] @ to_image[:, :2].T + to_image[:, 2]
        truth, boxes = (torch.from_numpy(file[f"{name}_{i}"]) for name in ("gt_kps", "bbox_xywh"))
        best, who = matched(coords, truth, boxes, joints)
        scores += best.tolist()

        height, width = heat.shape[1:]
        corners = torch.tensor([[-0.5, -0.5], [width - 0.5, height - 0.5]]) @ to_image[:, :2].T + to_image[:, 2]
        (left, top), (right, bottom) = corners.tolist()
        axis.imshow(heat[:18].amax(0).float(), cmap="Blues", vmin=0, vmax=2, extent=(left, right, bottom, top))
        for person, pose in enumerate(coords):
            draw_limbs(axis, pose, limbs, color=FOUND if person in who else EXTRA, linewidth=2.2)
        for person, pose in enumerate(truth):
            pose = pose[:, :2].masked_fill(pose[:, 2:] == 0, float("nan"))
            draw_limbs(axis, pose, limbs, color=ANNOTATED, linewidth=0.7)
            shown = pose[~pose[:, 0].isnan()]
            axis.plot(*shown.T, ".", color=ANNOTATED, markersize=3)
            x, y = shown[shown[:, 1].argmin()].tolist()
            label = dict(
                fontsize=8, ha="center", bbox=dict(boxstyle="round,pad=0.15", fc="white", ec="none", alpha=0.75)
            )
            axis.text(x, y - 0.03 * (bottom - top), f"{best[person]:.2f}", **label)
        axis.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    figure.suptitle(
        f"{len(scores)} annotated people (black) and who was found (orange; grey: left over), "
        f"with their OKS; mean {np.mean(scores):.2f}",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("people.png"), dpi=90)


if __name__ == "__main__":
    main()
