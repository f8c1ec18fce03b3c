"""Small data sets in the formats of the large ones, made by hand."""

import json
import zipfile

import numpy as np
import scipy.io
from PIL import Image


def image_file(path, size=(40, 60), seed=0):
    """An image of random colours, ``size`` is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def lsp_folder(folder, people=6, size=(40, 60)):
    """LSP's layout: joint k of person i is at (4 k, 2 k + i / 10); the first joint of each is occluded."""
    joints = np.zeros((3, 14, people))
    for i in range(people):
        image_file(folder / "images" / f"im{i + 1:04d}.jpg", size, seed=i)
        joints[0, :, i], joints[1, :, i] = 4 * np.arange(14), 2 * np.arange(14) + i / 10
    joints[2, 0] = 1
    scipy.io.savemat(folder / "joints.mat", {"joints": joints})
    return folder


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco_person(image_id, keypoints, **more):
    """One annotation."""
    return {"id": 7, "image_id": image_id, "category_id": 1, "bbox": [1, 2, 30, 20], "keypoints": keypoints, **more}


def coco_file(path, annotations, joints=17, size=(40, 60)):
    """Annotations of one image, ``a.jpg``."""
    image_file(path.parent / "a.jpg", size)
    images = [{"id": 3, "file_name": "a.jpg", "height": size[0], "width": size[1]}]
    return write_json(path, {"images": images, "annotations": annotations, "categories": []})


def cpm_person(**changes):
    """One person in the json of MPII that CPM's authors made."""
    joints = [[10.0 + k, 20.0 + k, 1.0] for k in range(16)]
    nothing = {"_ArrayType_": "double", "_ArraySize_": [0, 0], "_ArrayData_": None}
    return {
        "dataset": "MPI", "isValidation": 0.0, "img_paths": "a.jpg", "img_width": 60.0, "img_height": 40.0,
        "objpos": [21.0, 11.0], "joint_self": joints, "scale_provided": 0.1, "joint_others": nothing,
        "numOtherPeople": 0.0,
    } | changes  # fmt: skip


def zipped(folder, path, top=""):
    """A zip archive of a folder, all of it below ``top``."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, top + str(file.relative_to(folder)))
    return path
