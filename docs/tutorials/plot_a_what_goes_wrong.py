"""
What goes wrong: errors by joint
================================

A mean of 60 % shows that a system is inaccurate, but not why. ``pypose-ops evaluate --plot`` sorts the
predicted joints as Ronchi & Perona (2017) do: a joint is *good*, a little off (*jitter*), on the person's other side
(*inversion*), on somebody else (*swap*), or nowhere near either (*miss*).
"""

# %%
# Difficult images
# ----------------
# The packaged weights have no difficulty with scikit-image's astronaut. We therefore rotate the image and paste a
# second copy into it; the true joints are known from the original photograph.

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image
from skimage.data import astronaut

from pypose_ops import crop_patches, geometry, models, skeletons
from pypose_ops.cli.main import main
from pypose_ops.models.inference import find_joints

torch.manual_seed(0)
system, _ = models.pretrained()
system.eval()
photograph = torch.from_numpy(astronaut())
whole = torch.tensor([[0.0, 0.0, 511.0, 511.0]])
joints, scores = find_joints(system, skeletons.COCO, photograph, whole, flip=True)
visible = scores[0] > 0.3
pixels = torch.cat((photograph, torch.full((512, 512, 1), 255, dtype=torch.uint8)), -1).permute(2, 0, 1)  # with a mask


def meeting():
    """Two rotated copies, one partly occluding the other: the image and both people's joints."""
    center = torch.tensor([[150.0, 150.0], [270.0, 170.0]]) + 25 * torch.randn(2, 2)
    side = 180 + 60 * torch.rand(2)
    transforms = geometry.box_to_transform(center, side[:, None].expand(2, 2), 50 * torch.randn(2), (512, 512))
    layers = crop_patches(pixels, geometry.invert_transform(transforms), (320, 420), antialias=True)
    image = torch.full((3, 320, 420), 128.0)
    for layer in layers:
        opacity = layer[3:] / 255
        image = image * (1 - opacity) + layer[:3] * opacity
    return image.permute(1, 2, 0).clamp(0, 255).byte(), geometry.transform_points(joints.expand(2, -1, -1), transforms)


# %%
# Two files
# ---------
# Annotations and results in COCO's format, as any tool writes them.

folder = Path(tempfile.mkdtemp())
images, annotations, results = [], [], []
for number in range(24):
    image, people = meeting()
    name = f"meeting{number:02}.png"
    Image.fromarray(image.numpy()).save(folder / name)
    images.append({"id": number, "file_name": name, "width": 420, "height": 320})
    low, high = people[:, visible].amin(1), people[:, visible].amax(1)
    found, found_scores = find_joints(system, skeletons.COCO, image, torch.cat((low, high), 1), padding=1.5)
    ids = {"image_id": number, "category_id": 1}
    for person in range(2):
        truth = torch.cat((people[person], 2.0 * visible[:, None]), 1) * visible[:, None]
        size = (high - low)[person].tolist()
        box, area = [*low[person].tolist(), *size], size[0] * size[1]
        record = {
            "id": len(annotations),
            "keypoints": truth.flatten().tolist(),
            "bbox": box,
            "area": area,
            "iscrowd": 0,
        }
        annotations.append(ids | record)
        keypoints = torch.cat((found[person].nan_to_num(), found_scores[person, :, None]), 1).flatten().tolist()
        results.append(ids | {"keypoints": keypoints, "score": found_scores[person].mean().item()})
category = {"id": 1, "name": "person", "keypoints": skeletons.COCO.joints, "skeleton": []}
truth = {"images": images, "annotations": annotations, "categories": [category]}
(folder / "truth.json").write_text(json.dumps(truth))
(folder / "results.json").write_text(json.dumps(results))

# %%
# One command
# -----------
# In a shell: ``pypose-ops evaluate --metric coco --predictions results.json --ground-truth truth.json --plot out``. The
# images are searched next to the annotations, or in ``--images FOLDER``.

files = ["--predictions", str(folder / "results.json"), "--ground-truth", str(folder / "truth.json")]
assert main(["evaluate", "--metric", "coco", *files, "--plot", str(folder / "out")]) == 0


def show(name, width):
    image = Image.open(folder / "out" / name)
    figure = plt.figure(figsize=(width, width * image.height / image.width))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image)
    axes.axis("off")


# %%
# The worst people
# ----------------
# Predictions in colour (left orange, right blue), annotations in white. Look at these first: they also reveal wrong
# annotations.

show("worst.png", 10)

# %%
# Errors by joint
# ---------------

show("errors.png", 10)

# %%
# Which joint lies on which
# -------------------------
# A row for the predictions of each joint, a column for the joint they lie on. Pairs beside the diagonal are swaps of
# left and right, as caused by mirrored training images whose labels were not swapped, or by people who are upside down.

show("confusion.png", 8)

# %%
# PCK and OKS
# -----------
# PCK over the threshold, and a histogram of the OKS of all people; a second mode on the left is a different kind of
# failure.

show("pck.png", 7)
show("oks.png", 6)

# %%
# ``errors.json`` contains the numbers; :func:`pypose_ops.metrics.joint_errors` computes them from tensors.

kinds = json.loads((folder / "out" / "errors.json").read_text())["joints"]["left_wrist"]
print({kind: round(share, 2) for kind, share in kinds.items()})
plt.show()
