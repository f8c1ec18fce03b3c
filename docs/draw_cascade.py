"""Draws docs/cascades.jpg: a cascade step and masked body patches of the astronaut.  python docs/draw_cascade.py"""

from importlib import resources
from pathlib import Path

import matplotlib
import torch
from skimage.data import astronaut

from pypose_ops import crop_patches, decode_heatmaps, geometry
from pypose_ops.cli.files import load_heatmaps
from pypose_ops.skeletons import COCO

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402

SIDE = 64
PARTS = ("nose", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow")


def main():
    image = torch.from_numpy(astronaut().copy()).permute(2, 0, 1)[None]
    with resources.as_file(resources.files("pypose_ops") / "data" / "astronaut_movenet.npz") as path:
        file = load_heatmaps(path, "heat")
    pose = decode_heatmaps(file.heatmaps, transform=file.hm2img).coords[0]
    # The hips are guesses, below the image: the shoulders' distance is about the torso's.
    torso = COCO.joints.index("left_shoulder"), COCO.joints.index("right_shoulder")
    center, scale = geometry.joint_boxes(pose, torso, sigma=0.7)
    transforms = geometry.box_to_transform(center, scale, 0.0, (SIDE, SIDE), align="center")
    crops = crop_patches(image, transforms, (SIDE, SIDE), antialias=True, dtype=torch.uint8)

    boxes = torch.cat([center - scale / 2, center + scale / 2], -1)
    chosen = [COCO.joints.index(name) for name in PARTS]
    whole = torch.tensor(
        [[[512 / 160, 0, 511 / 2 - 512 / 160 * 159 / 2], [0, 512 / 160, 511 / 2 - 512 / 160 * 159 / 2]]]
    )
    body = crop_patches(image, whole.expand(5, 2, 3), (160, 160), antialias=True, mask=boxes[chosen])

    figure = plt.figure(figsize=(9, 6.4))
    rows = figure.add_gridspec(
        2, 1, height_ratios=(3.4, 1.8), hspace=0.06, left=0.01, right=0.99, top=0.97, bottom=0.01
    )
    top = rows[0].subgridspec(3, 9, wspace=0.06, hspace=0.25)
    axis = figure.add_subplot(top[:, :3])
    axis.imshow(image[0].permute(1, 2, 0))
    for (x1, y1, x2, y2), name in zip(boxes.tolist(), COCO.joints, strict=True):
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="white", linewidth=0.8))
        axis.plot((x1 + x2) / 2, (y1 + y2) / 2, "o", markersize=3, color="#ff8c1a" if "left" in name else "#1fa2ff")
    axis.set(xlim=(-0.5, 511.5), ylim=(511.5, -0.5))
    axis.axis("off")
    for i, crop in enumerate(crops):
        axis = figure.add_subplot(top[i // 6, 3 + i % 6])
        axis.imshow(crop.permute(1, 2, 0))
        axis.set_title(COCO.joints[i].replace("_", " "), fontsize=7, pad=2)
        axis.axis("off")
    bottom = rows[1].subgridspec(1, 5, wspace=0.06)
    for i, patch in enumerate(body):
        axis = figure.add_subplot(bottom[i])
        mask = patch[3:].expand(3, -1, -1) * torch.tensor([1.0, 0.55, 0.1])[:, None, None]
        axis.imshow((patch[:3] / 255 * (1 - 0.4 * patch[3:]) + 0.4 * mask).permute(1, 2, 0).clamp(0, 1))
        axis.set_title(f"body and {PARTS[i].replace('_', ' ')}", fontsize=7, pad=2)
        axis.axis("off")
    figure.savefig(Path(__file__).with_name("cascades.jpg"), dpi=110, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
