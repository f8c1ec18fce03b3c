"""The skeletons of the data sets."""

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from pypose_ops import skeletons, viz  # noqa: E402


def draw_skeletons(path):
    """The skeletons of the data sets on one standing person: the joints' numbers, left orange and right blue."""
    order = list(skeletons.SKELETONS.values())
    figure, axes = plt.subplots(1, len(order), figsize=(2.4 * len(order), 4.2), layout="constrained")
    for panel, skeleton in zip(axes, order, strict=True):
        points = np.array([STANDING.get(name, (float("nan"), float("nan"))) for name in skeleton.joints])
        if skeleton.name == "flic":  # its sides are the observer's
            points[:, 0] = -points[:, 0]
        colors = [
            viz.COLORS[side if (side := name.split("_")[0]) in viz.COLORS else "centre"] for name in skeleton.joints
        ]
        for a, b in skeleton.edges:
            panel.plot(points[[a, b], 0], points[[a, b], 1], color="0.6", linewidth=2, zorder=1)
        panel.scatter(*points.T, s=130, color=colors, zorder=2)
        for k, point in enumerate(points):
            panel.text(*point, str(k), ha="center", va="center_baseline", fontsize=7, zorder=3)
        panel.set(xlim=(-60, 60), ylim=(250, -15), aspect="equal", title=f"{skeleton.name}: {len(skeleton)}")
        panel.axis("off")
    figure.savefig(path, dpi=90)
    plt.close(figure)


# By joint name, of every skeleton; the person's left is on the right.
STANDING = {
    "nose": (0, 20), "left_eye": (9, 6), "right_eye": (-9, 6), "left_ear": (21, 14), "right_ear": (-21, 14),
    "head_top": (0, 0), "neck": (0, 45), "upper_neck": (0, 38), "thorax": (0, 56), "pelvis": (0, 132),
    "left_shoulder": (25, 55), "right_shoulder": (-25, 55), "left_elbow": (35, 95), "right_elbow": (-35, 95),
    "left_wrist": (40, 135), "right_wrist": (-40, 135), "left_hip": (14, 135), "right_hip": (-14, 135),
    "left_knee": (16, 185), "right_knee": (-16, 185), "left_ankle": (17, 235), "right_ankle": (-17, 235),
}  # fmt: skip
