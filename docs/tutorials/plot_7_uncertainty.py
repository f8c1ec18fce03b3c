"""
Uncertainty of joint positions
==============================

A score is the height of a peak. The uncertainty of the position is in the shape of the map: the curvature at the peak,
or the marginals of a graphical model.
"""

# %%
# DARK's covariance
# -----------------
# DARK fits a Gaussian at the peak; ``return_covariance=True`` returns its covariance, in image pixels if
# ``transform`` is given. Here two joints have blobs of different widths and orientations.

import matplotlib.pyplot as plt
import torch

import pypose_ops

SIZE = (48, 64)
y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")


def blob(center, covariance):
    offset = torch.stack((x, y), -1).float() - torch.tensor(center)
    return torch.exp(-0.5 * (offset @ torch.linalg.inv(covariance) * offset).sum(-1))


covariances = torch.tensor([[[4.0, 0.0], [0.0, 4.0]], [[16.0, 6.0], [6.0, 6.0]]])
maps = torch.stack([blob((16.0, 24.0), covariances[0]), blob((44.3, 22.6), covariances[1])])[None]
result = pypose_ops.decode_heatmaps(maps, refine="dark_udp", kernel_size=3, return_covariance=True)
print(result.covariance[0])


def ellipse(mean, covariance, sigmas=2.0):
    values, vectors = torch.linalg.eigh(covariance)
    angle = torch.linspace(0, 2 * torch.pi, 60)
    circle = torch.stack((angle.cos(), angle.sin()))
    return mean[:, None] + sigmas * vectors @ (values.clamp(min=0).sqrt()[:, None] * circle)


figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.imshow(maps[0].amax(0), cmap="gray")
for k in range(2):
    axes.plot(*ellipse(result.coords[0, k], result.covariance[0, k]), color="#ff8c1a", label="DARK" if k == 0 else None)
    axes.plot(*ellipse(result.coords[0, k], covariances[k]), "--", color="#1fa2ff", label="truth" if k == 0 else None)
axes.legend()
axes.set_title("two standard deviations")

# %%
# Does it predict the error?
# --------------------------
# Noise moves the peak, and moves it further along the long axis of the blob.

torch.manual_seed(0)
noisy = maps + 0.03 * torch.randn(400, 2, *SIZE)
coords = pypose_ops.decode_heatmaps(noisy, refine="dark_udp", kernel_size=9).coords
spread = (coords - torch.tensor([[16.0, 24.0], [44.3, 22.6]])).std(0)
print("standard deviation of the decoded joints (x, y):", spread.tolist())
assert spread[1, 0] > spread[0, 0]

# %%
# Marginals of a graphical model
# ------------------------------
# :func:`pypose_ops.sum_product` returns the distribution of every joint given all the evidence. An invisible joint is
# distributed according to its neighbour.

unary = torch.full((1, 2, *SIZE), 0.02)
unary[0, 0] += maps[0, 0]
log_marginals, _ = pypose_ops.sum_product(unary.log(), [(0, 1)], torch.tensor([[18.0, 4.0, 0.05, 0.2]]))
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for k, title in enumerate(("seen joint", "hidden joint")):
    axes[k].imshow(log_marginals[0, k].exp())
    axes[k].set_title(title)
    axes[k].axis("off")
mean = (log_marginals[0, 1].exp()[..., None] * torch.stack((x, y), -1)).sum((0, 1))
print("the hidden joint is expected at", mean.tolist())
plt.show()
