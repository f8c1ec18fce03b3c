"""Invalid data sets: a one-line error names the file, what was expected and what was found."""

import shutil

import numpy as np
import pytest
import scipy.io
from data_files import coco_file, coco_person, cpm_person, image_file, lsp_folder, write_json, zipped

from pypose_ops.datasets import ImageError, open_dataset
from pypose_ops.errors import InputError


def no_image(folder):
    (lsp_folder(folder) / "images" / "im0002.jpg").unlink()
    return "lsp", folder, r"images/im0002.jpg: no such image, named in lsp:"


def no_images_in_zip(folder):
    lsp_folder(folder / "lsp")
    shutil.rmtree(folder / "lsp" / "images")
    return "lsp", zipped(folder / "lsp", folder / "lsp.zip"), "no such image.*6 of 6 are missing"


def truncated_zip(folder):
    path = zipped(lsp_folder(folder / "lsp"), folder / "lsp.zip")
    path.write_bytes(path.read_bytes()[:-200])
    return "lsp", path, "lsp.zip: expected a folder or a zip archive; not a zip archive, or truncated"


def not_a_zip(folder):
    return "lsp", image_file(folder / "a.jpg"), "expected a folder or a zip archive"


def no_joints_mat(folder):
    image_file(folder / "images" / "im0001.jpg")
    return "lsp", folder, "expected joints.mat in it, there is no such file"


def lspet_as_lsp(folder):
    scipy.io.savemat(folder / "joints.mat", {"joints": np.zeros((14, 3, 5))})
    return "lsp", folder, r"joints.mat: expected joints of shape \(3, 14, N\) as in LSP.*LSPET's, open it as lspet"


def lsp_as_lspet(folder):
    return "lspet", lsp_folder(folder), "joints.mat: expected joints of shape.*LSP's, open it as lsp"


def other_mat(folder):
    scipy.io.savemat(folder / "joints.mat", {"pred": np.zeros((2, 14, 5))})
    return "lsp", folder, "joints.mat: expected an array joints of LSP, it has pred"


def broken_mat(folder):
    (folder / "joints.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(60))
    return "lsp", folder, "joints.mat: .*expected a .mat file"


def lsp_mat_as_mpii(folder):
    return "mpii", lsp_folder(folder) / "joints.mat", "expected MPII's RELEASE with annolist and img_train"


def coco_as_mpii(folder):
    return "mpii", coco_file(folder / "a.json", []), "a.json: .*expected MPII's json"


def mpii_as_coco(folder):
    return "coco", write_json(folder / "a.json", [cpm_person()]), "a.json: expected COCO annotations"


def detections_as_aic(folder):
    content = [{"bbox": [1, 2, 3, 4], "image_id": 785, "score": 0.5}]
    return "aic", write_json(folder / "a.json", content), "a.json: expected AI Challenger annotations"


def aic_as_coco(folder):
    path = coco_file(folder / "a.json", [coco_person(3, [1, 2, 2] * 14)])
    return "coco", path, "a.json: expected 17 keypoints x, y, visibility for annotation 7"


def not_json(folder):
    (folder / "a.json").write_text("{")
    return "coco", folder / "a.json", "a.json: not json"


def no_file(folder):
    return "coco", folder / "a.json", "a.json: no such file"


def no_folder(folder):
    return "lsp", folder / "lsp", "lsp: no such file or folder"


def joints_out_of_the_image(folder):
    return "lsp", lsp_folder(folder, size=(20, 22)), r"im0001.jpg: left_shoulder is at \(36, 18\).*far out.*22x20 px"


def joint_not_finite(folder):
    scipy.io.savemat(lsp_folder(folder) / "joints.mat", {"joints": np.full((3, 14, 6), np.nan)})
    return "lsp", folder, "im0001.jpg: a labelled joint is not finite"


def people_without_joints(folder):
    path = coco_file(folder / "a.json", [coco_person(3, [0] * 51)])
    return "coco", path, r"a.json: no people with labelled joints \(of 1\), expected at least one"


def empty(folder):
    return "coco", write_json(folder / "a.json", {"images": [], "annotations": []}), "no people with labelled joints"


def others_out_of_sight(folder):
    record = cpm_person(joint_others=[[1e300, 5.0, 1.0]] * 16)
    return "mpii", write_json(folder / "a.json", [record]), "a.json: person 0: joint_others must be finite numbers"


def a_person_of_no_size(folder):
    return "mpii", write_json(folder / "a.json", [cpm_person(scale_provided=1e-9)]), "scale 1e-09 of a person"


WRONG = (
    others_out_of_sight, a_person_of_no_size,
    no_image, no_images_in_zip, truncated_zip, not_a_zip, no_joints_mat, lspet_as_lsp, lsp_as_lspet, other_mat,
    broken_mat, lsp_mat_as_mpii, coco_as_mpii, mpii_as_coco, detections_as_aic, aic_as_coco, not_json, no_file,
    no_folder, joints_out_of_the_image, joint_not_finite, people_without_joints, empty,
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda f: f.__name__)
def test_one_line_says_what_was_expected(tmp_path, wrong):
    kind, path, message = wrong(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(f"{kind}:{path}")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("spec", ["lsp", "flic:/tmp", "/tmp/lsp.zip"])
def test_spec(spec):
    with pytest.raises(InputError, match="^data must be FORMAT:PATH with a format of lsp, lspet, mpii, coco, aic"):
        open_dataset(spec)


def test_joints_slightly_out_of_the_image_stay(tmp_path):
    data = open_dataset(f"lsp:{lsp_folder(tmp_path, size=(24, 44))}")
    assert data.samples[0].keypoints[13].tolist() == [52, 26] and data.dropped_joints == 0


def test_bad_image(tmp_path):
    (lsp_folder(tmp_path) / "images" / "im0002.jpg").write_bytes(b"no image")
    data = open_dataset(f"lsp:{tmp_path}")  # known when it is wanted
    assert len(data) == 6 and data.samples[1].size is None
    with pytest.raises(ImageError, match="im0002.jpg: not a readable image"):
        data.samples[1].image.decode()
