"""
Targets and loss for your own network
=====================================

A network with one heatmap per joint is trained against Gaussian targets. They are drawn on the device of the keypoints,
and the loss is computed without materialising them.
"""

# %%
# The data: joints in heatmap pixels
# ----------------------------------
# Synthetic images that can be learned in seconds: each joint is a dot of its own colour on noise.

import matplotlib.pyplot as plt
import torch
from torch import nn

import pypose_ops

torch.manual_seed(0)
SIZE, JOINTS = (48, 64), 3
COLORS = torch.eye(3)


def batch(count):
    keypoints = 6 + torch.rand(count, JOINTS, 2) * torch.tensor([SIZE[1] - 12.0, SIZE[0] - 12.0])
    dots = pypose_ops.gaussian_heatmaps(keypoints, 1.5, SIZE)
    images = torch.einsum("bkhw,kc->bchw", dots, COLORS) + 0.2 * torch.rand(count, 3, *SIZE)
    visible = torch.rand(count, JOINTS) > 0.1  # some joints are not annotated
    return images, keypoints, visible


# %%
# What the targets look like
# --------------------------
# ``(B, K, H, W)``; an invisible joint has an empty map.

images, keypoints, visible = batch(4)
targets = pypose_ops.gaussian_heatmaps(keypoints, 2.0, SIZE, visible=visible)
figure, axes = plt.subplots(1, 1 + JOINTS, figsize=(10, 2.2), layout="constrained")
axes[0].imshow(images[0].permute(1, 2, 0).clamp(0, 1))
axes[0].set_title("image")
for k in range(JOINTS):
    axes[1 + k].imshow(targets[0, k])
    axes[1 + k].set_title(f"target of joint {k}")

# %%
# Training
# --------
# :func:`pypose_ops.heatmap_mse_loss` returns the mean squared error against these targets, with its gradient, without
# materialising them; the tensor above is only for display.

network = nn.Sequential(
    nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, JOINTS, 1)
)
optimizer = torch.optim.Adam(network.parameters(), 3e-3)
losses = []
for _ in range(60):
    images, keypoints, visible = batch(16)
    loss = pypose_ops.heatmap_mse_loss(network(images), keypoints, 2.0, weight=visible.float())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

figure, axes = plt.subplots(figsize=(5, 2.5), layout="constrained")
axes.semilogy(losses)
axes.set(xlabel="step", ylabel="loss")

# %%
# Predictions
# -----------
# Decoding is also a single call.

images, keypoints, _ = batch(64)
with torch.no_grad():
    coords, scores = pypose_ops.decode_heatmaps(network(images))
error = (coords - keypoints).norm(dim=-1)
print(f"median error {error.median():.2f} pixels")
assert error.median() < 1

figure, axes = plt.subplots(figsize=(4, 3), layout="constrained")
axes.imshow(images[0].permute(1, 2, 0).clamp(0, 1))
axes.plot(keypoints[0, :, 0], keypoints[0, :, 1], "w+", markersize=12, label="annotated")
axes.plot(coords[0, :, 0], coords[0, :, 1], "k.", label="decoded")
axes.legend()
plt.show()
