"""
Several people with part affinity fields
========================================

With several people in an image, each heatmap has several peaks, which must be assigned to people. Part
affinity fields (Cao et al., 2017) encode the direction of each limb as unit vectors: a pair of peaks is scored by the
field between them.
"""

# %%
# Maps of two people
# ------------------
# A bottom-up network predicts such maps; here they are drawn from known poses.

import matplotlib.pyplot as plt
import torch

import pypose_ops
from pypose_ops import skeletons

COCO = skeletons.COCO
SIZE = (96, 128)
standing = torch.tensor(
    [
        [50, 20], [55, 15], [45, 15], [62, 20], [38, 20], [75, 55], [25, 55], [85, 100], [15, 100],
        [90, 140], [10, 140], [65, 135], [35, 135], [67, 185], [33, 185], [68, 232], [32, 232],
    ],
    dtype=torch.float32,
)  # fmt: skip
people = torch.stack((standing * 0.35 + torch.tensor([16.0, 6.0]), standing * 0.3 + torch.tensor([62.0, 16.0])))[None]
heatmaps = pypose_ops.gaussian_heatmaps(people, 1.5, SIZE)
fields = pypose_ops.part_affinity_fields(people, COCO.edges, 1.0, SIZE)
print(heatmaps.shape, fields.shape)

# %%
# Peaks, limbs, people
# --------------------
# Three calls: all local maxima, a score for every pair of candidates of every limb, and the assignment.

peaks = pypose_ops.find_peaks(heatmaps, threshold=0.3)
scores = pypose_ops.score_limbs(fields, peaks, COCO.edges)
found = pypose_ops.group_people(peaks, scores, COCO.edges)
count = int(found.counts[0])
print(f"{count} people, with {found.joint_counts[0, :count].tolist()} joints")
assert count == 2

figure, axes = plt.subplots(1, 3, figsize=(10, 2.7), layout="constrained")
axes[0].imshow(heatmaps[0].amax(0))
axes[0].set_title("heatmaps")
axes[1].imshow(fields[0].unflatten(0, (-1, 2)).norm(dim=1).amax(0))
axes[1].set_title("fields")
axes[2].imshow(torch.zeros(SIZE), cmap="gray")
for person in found.coords[0, :count]:
    for a, b in COCO.edges:
        axes[2].plot(person[[a, b], 0], person[[a, b], 1], linewidth=2)
axes[2].set_title("people")
for panel in axes:
    panel.axis("off")

# %%
# Duplicate detections
# --------------------
# Top-down systems may find one person in two overlapping boxes; OKS-NMS keeps the better detection.

twice = torch.cat((found.coords[0, :count], found.coords[0, :1] + 0.5))
kept = pypose_ops.oks_nms(twice, torch.tensor([0.9, 0.8, 0.5]), torch.tensor([3000.0, 2200.0, 3000.0]))
print(kept.mask.tolist())
assert kept.mask.tolist() == [True, True, False]
plt.show()
