"""Small valid files of every format that is read, which the fuzzer of files then breaks."""

import io
import json
import zipfile

import numpy as np
import scipy.io
from PIL import Image

from pypose_ops.skeletons import COCO

SIZE = 60, 40  # width, height of a.png


def joints(count, visible=2):
    """A list of x, y, visibility."""
    return [v for k in range(count) for v in (4.0 + 3 * (k % 17), 3.0 + 2 * (k % 16), visible)]


def coco():
    person = {
        "id": 1, "image_id": 4, "category_id": 1, "bbox": [5.0, 2.0, 40.0, 30.0], "area": 700.0, "iscrowd": 0,
        "num_keypoints": 17, "keypoints": joints(17),
    }  # fmt: skip
    return {
        "images": [{"id": 4, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}],
        "annotations": [person, person | {"id": 2, "bbox": [8.0, 4.0, 30.0, 30.0]}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.joints), "skeleton": [[16, 14], [14, 12]]}],
    }


def own_coco():
    """Joints of one's own."""
    person = {"id": 1, "image_id": 4, "category_id": 2, "bbox": [5.0, 2.0, 40.0, 30.0], "keypoints": joints(4, 1)}
    names = ["wrist", "left_tip", "right_tip", "k4"]
    return coco() | {
        "annotations": [person],
        "categories": [{"id": 2, "name": "hand", "keypoints": names, "skeleton": [[1, 2]]}],
    }


def results():
    return [{"image_id": 4, "category_id": 1, "keypoints": joints(17, 1), "score": s} for s in (0.5, 0.9)]


def own_results():
    return [{"image_id": 4, "category_id": 2, "keypoints": joints(4, 1), "score": 0.5}]


def aic():
    return [
        {
            "image_id": "a",
            "keypoint_annotations": {"human1": joints(14, 1), "human2": joints(14, 3)},
            "human_annotations": {"human1": [5, 2, 40, 30], "human2": [1, 2, 30, 40]},
        }
    ]


def msra():
    pose = [[10.0 + k, 5.0 + k] for k in range(16)]
    person = {"image": "a.png", "center": [25.0, 20.0], "scale": 0.2, "joints": pose, "joints_vis": [1] * 16}
    return [person, person | {"center": [20.0, 20.0]}]


def cpm():
    pose = [[10.0 + k, 5.0 + k, 1.0] for k in range(16)]
    person = {
        "dataset": "MPI", "isValidation": 0.0, "img_paths": "a.png", "img_width": 60.0, "img_height": 40.0,
        "objpos": [21.0, 11.0], "joint_self": pose, "scale_provided": 0.1, "joint_others": pose, "numOtherPeople": 1.0,
    }  # fmt: skip
    return [person, person | {"isValidation": 1.0, "joint_others": {"_ArraySize_": [0, 0]}}]


def boxes():
    return {
        "boxes": [
            [1.0, 2.0, 30.0, 35.0],
            {"bbox": [3, 4, 20, 20], "score": 0.9},
            {"box": [1, 2, 9, 9], "rotation": 30},
        ]
    }


def boxes_by_name():
    return {"a.png": boxes()["boxes"]}


def lsp():
    poses = np.zeros((3, 14, 3))
    poses[0], poses[1] = 4 * np.arange(14)[:, None], 2 * np.arange(14)[:, None]
    return {"joints": poses}


def lspet():
    return {"joints": lsp()["joints"].transpose(1, 0, 2) + np.array([0.0, 0, 1])[None, :, None]}


def lsp_pred():
    return {"pred": lsp()["joints"][:2]}


def mpii_truth():
    heads = np.array([[1.0, 2.0], [20.0, 30.0]])[..., None].repeat(2, -1)
    return {"pos_gt_src": np.ones((16, 2, 2)), "jnt_missing": np.zeros((16, 2)), "headboxes_src": heads}


def mpii_pred():
    return {"preds": np.ones((2, 16, 2))}


def mpii_release():
    point = {"x": 5.0, "y": 6.0, "id": 3, "is_visible": 1}
    person = {"annopoints": {"point": [point, point | {"id": 4}]}, "scale": 0.2, "objpos": {"x": 21.0, "y": 11.0}}
    person |= {"x1": 2.0, "y1": 3.0, "x2": 8.0, "y2": 9.0}
    return {"RELEASE": {"annolist": [{"image": {"name": "a.png"}, "annorect": [person, person]}], "img_train": [1]}}


def flic():
    return {"joints": np.full((3, 11, 2), 5.0) + np.arange(11)[:, None], "is_train": np.array([True, False, False])}


def flic_pred():
    return {"pred": flic()["joints"][1:]}


def maps():
    heat = np.zeros((1, 17, 16, 12), np.float32)
    heat[:, :, 8, 5] = 1
    affine = np.array([[4.0, 0, 1.5], [0, 4.0, 1.5]], np.float32)
    return {"heatmaps": heat, "hm2img": affine, "joint_names": np.array(COCO.joints), "meta": np.array('{"a": 1}')}


def fields():
    heat = np.zeros((3, 16, 12), np.float32)
    heat[0, 8, 2] = heat[1, 8, 8] = 1
    paf = np.zeros((2, 16, 12), np.float32)
    paf[0] = 1
    return {
        "heatmaps": heat, "paf": paf, "limbs": np.array([[0, 1]]), "paf_channels": np.array([[0, 1]]),
    }  # fmt: skip


def skeleton():
    return {
        "name": "hand", "joints": ["wrist", "left_tip", "right_tip"], "edges": [["wrist", "left_tip"], [0, 2]],
        "flip_pairs": [[1, 2]], "sigmas": [0.03, 0.02, 0.02], "norm": ["wrist", "left_tip"],
    }  # fmt: skip


def corrections():
    return {"a.png": {"exchange": ["arms"], "mask": ["nose", "left_eye"]}, "b.png": {"exchange": [], "mask": ["nose"]}}


# Encodings ------------------------------------------------------------------------------------------------------------


def as_npz(draw, tree):
    """An npz archive; the headers of some arrays say another shape than they have."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", draw.pick((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, values in tree.items() if isinstance(tree, dict) else [("values", tree)]:
            data = io.BytesIO()
            np.lib.format.write_array(data, np.asarray(values), allow_pickle=True)
            text = data.getvalue()
            if draw.chance(0.05):
                text = text.replace(b"(1", b"(9", 1).replace(b", 1", b", 9", draw.pick((0, 1)))
            archive.writestr(f"{name}.npy"[:60].replace("\0", ""), text)
    return out.getvalue()


def as_mat(draw, tree):
    """A .mat file of MATLAB 5."""
    out = io.BytesIO()
    variables = tree if isinstance(tree, dict) else {"values": tree}
    variables = {str(k).strip().replace("\0", "")[:30] or "x": _matlab(v) for k, v in variables.items()}
    scipy.io.savemat(out, variables, do_compression=draw.chance(0.3))
    return out.getvalue()


def _matlab(value):
    """Lists of dicts are struct arrays."""
    if isinstance(value, dict):
        return {str(k)[:30] or "x": _matlab(v) for k, v in value.items()}
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        names = list(dict.fromkeys(k for v in value for k in v)) or ["x"]
        array = np.zeros(len(value), dtype=[(str(n)[:30] or "x", object) for n in names])
        for i, v in enumerate(value):
            array[i] = tuple(_matlab(v.get(n, np.zeros((0, 0)))) for n in names)
        return array
    if value is None:
        return np.zeros((0, 0))
    if isinstance(value, list):
        return np.array(value, object) if value else np.zeros((0, 0))
    return float(value) if isinstance(value, int) and abs(value) > 2**62 and abs(value) < 10**300 else value


def as_toml(_, tree):
    return "\n".join(f"{k} = {json.dumps(v)}" for k, v in tree.items() if k and v is not None).encode()


def image(kind):
    """The bytes of an image."""
    pixels = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    out, photo = io.BytesIO(), Image.fromarray(pixels)
    if kind == "gif":
        photo.save(out, "GIF", save_all=True, append_images=[photo.rotate(90), photo])
    elif kind == "tiff16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(out, "TIFF")
    else:
        photo.save(out, kind.upper())
    return out.getvalue()
