"""
Train and evaluate with your own skeleton
=========================================

Joints need not belong to people. A COCO file names the joints of each category and their connections, which is all that
training, evaluation and drawing need. This example uses synthetic fish, whose fins differ in colour.
"""

# %%
# Images and annotations
# ----------------------

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

from pypose_ops.cli.main import main

JOINTS = ["head", "tail", "dorsal_fin", "ventral_fin"]
folder = Path(tempfile.mkdtemp())
(folder / "images").mkdir()
random = np.random.default_rng(0)


def fish():
    """A fish at a random position: its four joints and its image."""
    angle, center, length = random.uniform(0, 2 * np.pi), random.uniform(50, 78, 2), random.uniform(24, 34)
    along = np.array([np.cos(angle), np.sin(angle)]) * length
    across = np.array([-along[1], along[0]]) * 0.45
    joints = np.array([center + along, center - along, center - across, center + across])
    image = Image.fromarray(random.integers(90, 140, (128, 128, 3), dtype=np.uint8))
    draw = ImageDraw.Draw(image)
    draw.polygon([tuple(joints[k]) for k in (0, 2, 1, 3)], fill=(200, 120, 40))
    for joint, color in zip(joints, ("red", "blue", "yellow", "cyan"), strict=True):
        draw.ellipse([*(joint - 4), *(joint + 4)], fill=color)
    return joints, image


def write(count, name):
    images, annotations = [], []
    for i in range(count):
        joints, image = fish()
        file = f"{name}{i:03}.png"
        image.save(folder / "images" / file)
        low, high = joints.min(0), joints.max(0)
        images.append({"id": i, "file_name": file, "width": 128, "height": 128})
        annotations.append(
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "bbox": [*low.tolist(), *(high - low).tolist()],
                "area": float(np.prod(high - low)),
                "iscrowd": 0,
                "num_keypoints": 4,
                "keypoints": np.column_stack([joints, np.full(4, 2)]).ravel().round(2).tolist(),
            }
        )
    category = {"id": 1, "name": "fish", "keypoints": JOINTS, "skeleton": [[1, 2], [1, 3], [1, 4]]}
    content = {"images": images, "annotations": annotations, "categories": [category]}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


train, test = write(64, "train"), write(16, "test")

# %%
# Train
# -----
# The same as ``pypose-ops train stacked_hourglass --data coco:train.json ...`` in a shell. The compact hourglass is
# reduced further, so that it trains within seconds.

run = folder / "run"
code = main(
    [
        *("train", "stacked_hourglass", "--preset", "compact", "--data", f"coco:{train}", "--out", str(run)),
        *("--set", "stacks=1", "--set", "width=32", "--set", "depth=2", "--set", "input_size=[64, 64]"),
        *("--epochs", "24", "--batch", "16", "--lr", "3e-3", "--seed", "1"),
    ]
)
assert code == 0

# %%
# Evaluate and predict
# --------------------

weights = str(run / "weights.safetensors")
assert main(["test", "--weights", weights, "--data", f"coco:{test}", "--split", "all"]) == 0

image = folder / "images" / "test000.png"
assert main(["predict", str(image), "--weights", weights, "--boxes", str(test), "--out", str(folder / "poses")]) == 0

figure, axes = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
axes[0].imshow(Image.open(image))
axes[0].set_title("image")
axes[1].imshow(Image.open(folder / "poses" / "test000.png"))
axes[1].set_title("predicted")
for panel in axes:
    panel.axis("off")
plt.show()
