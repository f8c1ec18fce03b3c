"""
Correcting a joint with a Markov random field
=============================================

A detector treats each joint independently, and may find another person's wrist, or a lamp. In the model of
Tompson et al. (2014), each joint's heatmap sends messages to the other joints through priors of their
displacements.
"""

# %%
# Two joints, one with a false peak
# ---------------------------------

import matplotlib.pyplot as plt
import torch

import pypose_ops

SIZE = (40, 60)
shoulder, elbow = [20.0, 12.0], [26.0, 24.0]
unary = pypose_ops.gaussian_heatmaps(torch.tensor([[shoulder, elbow]]), 1.5, SIZE)
false = pypose_ops.gaussian_heatmaps(torch.tensor([[[50.0, 8.0]]]), 1.5, SIZE)
unary[:, 1] = torch.maximum(0.7 * unary[:, 1], false[:, 0])
print("the detector says", pypose_ops.decode_heatmaps(unary).coords[0, 1].tolist(), "and the elbow is at", elbow)

# %%
# Priors from a training set
# --------------------------
# ``prior[e]`` is a histogram ``(2 H - 1, 2 W - 1)`` of the displacement from the source of edge e to its target, with
# displacement 0 in the middle. Here it is computed from slightly varying poses.

torch.manual_seed(0)
center = torch.tensor([SIZE[1] - 1.0, SIZE[0] - 1.0])
displacement = torch.tensor(elbow) - torch.tensor(shoulder)
poses = displacement + 2.0 * torch.randn(200, 2)
prior = torch.stack(
    [
        pypose_ops.gaussian_heatmaps(center + sign * poses[:, None], 1.5, (2 * SIZE[0] - 1, 2 * SIZE[1] - 1)).mean(0)[0]
        for sign in (1, -1)
    ]
)
edges = [(0, 1), (1, 0)]  # shoulder to elbow, elbow to shoulder

energy = pypose_ops.mrf_message_passing(unary, prior, torch.full((2,), 1e-3), edges)
repaired = pypose_ops.decode_heatmaps(energy.flatten(2).softmax(-1).view_as(energy), refine=None).coords
print("after one round of messages", repaired[0, 1].tolist())
assert (repaired[0, 1] - torch.tensor(elbow)).norm() < 2

figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), layout="constrained")
axes[0].imshow(unary[0, 1])
axes[0].set_title("elbow, as detected")
axes[1].imshow(prior[0])
axes[1].set_title("prior: elbow from shoulder")
axes[2].imshow(energy[0, 1].exp())
axes[2].set_title("elbow, after the message")
for panel in axes:
    panel.axis("off")

# %%
# Exact inference on a tree
# -------------------------
# If the graph is a tree and the priors are springs (quadratic costs), the best pose is found exactly, at a cost linear
# in the number of pixels.

springs = torch.tensor([[*displacement.tolist(), 0.1, 0.1]])
peaks, max_marginals = pypose_ops.max_product(unary.clamp(min=1e-3).log(), [(0, 1)], springs)
print("the best pose of the tree", peaks.coords[0].tolist())
assert (peaks.coords[0, 1] - torch.tensor(elbow)).norm() < 2
plt.show()
