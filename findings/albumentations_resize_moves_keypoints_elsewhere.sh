#!/usr/bin/env bash
# Resize of albumentations moves keypoints by another rule than the image that they are on.
#
# albumentations 2.0.8, opencv-python-headless 5.0.0.93. A blob whose centre is a keypoint is half a pixel to the right of it and
# below it after doubling, and a quarter of a pixel to the left and above after halving. After flips and rotations they agree.
#
# Seen, x and y of the keypoint less those of the blob:
#   x 2: -0.50 -0.50
#   / 2: +0.25 +0.25
#   flip: +0.00 +0.00
#   rotate 90: +0.00 +0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "albumentations==2.0.8" "numpy==2.4.6" "opencv-python-headless==5.0.0.93"
NO_ALBUMENTATIONS_UPDATE=1 "$folder/venv/bin/python" - <<'PYTHON'
import albumentations as A
import numpy as np

y, x = np.mgrid[:80, :80]
blob = np.exp(-((x - 30.0) ** 2 + (y - 40.0) ** 2) / 18).astype(np.float32)[..., None].repeat(3, 2)


def off(transform):
    pipeline = A.Compose([transform], keypoint_params=A.KeypointParams(format="xy"))
    done = pipeline(image=blob, keypoints=[(30.0, 40.0)])
    weights = done["image"][..., 0] / done["image"][..., 0].sum()
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]]
    centre = (columns * weights).sum(), (rows * weights).sum()
    return np.asarray(done["keypoints"][0])[:2] - centre


expected = {
    "x 2": (A.Resize(160, 160), -0.5),
    "/ 2": (A.Resize(40, 40), 0.25),
    "flip": (A.HorizontalFlip(p=1), 0.0),
    "rotate 90": (A.Rotate((90, 90), p=1), 0.0),
}
for name, (transform, shift) in expected.items():
    moved = off(transform)
    print(f"{name}: {moved[0]:+.2f} {moved[1]:+.2f}")
    assert np.abs(moved - shift).max() < 0.02, name
PYTHON
