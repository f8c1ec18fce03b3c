"""Readers of data sets: every quirk of the formats, on real files or on ones made by hand."""

import gzip
import json
import shutil

import numpy as np
import pytest
import scipy.io
import torch
from data_files import coco_file, coco_person, cpm_person, image_file, lsp_folder, write_json, zipped

from pypose_ops.datasets import hold_out, joined, open_dataset
from pypose_ops.errors import InputError
from pypose_ops.skeletons import AIC, COCO, LSP, MPII


def persons(shared_data, name):
    return [p for p in json.loads((shared_data / "people" / "persons.json").read_text()) if p["dataset"] == name]


# LSP and LSPET


def test_lsp_flag_is_occlusion_and_every_joint_counts(tmp_path):
    data = open_dataset(f"lsp:{lsp_folder(tmp_path)}")
    assert len(data) == 6 and data.skeleton == LSP
    sample = data.samples[2]
    assert sample.visible.tolist() == [1] + [2] * 13
    np.testing.assert_allclose(sample.keypoints[3], (12, 6.2), rtol=1e-6)
    assert sample.box is None and sample.size == (40, 60) and sample.others.shape == (0, 14, 3)


@pytest.mark.parametrize("top", ["", "lsp_dataset/"])
def test_lsp_zip_is_the_folder(tmp_path, top):
    folder = lsp_folder(tmp_path / "lsp")
    a, b = open_dataset(f"lsp:{folder}"), open_dataset(f"lsp:{zipped(folder, tmp_path / 'lsp.zip', top)}")
    for one, other in zip(a.samples, b.samples, strict=True):
        assert np.array_equal(one.keypoints, other.keypoints)
        assert torch.equal(one.image.decode(), other.image.decode())
        assert str(other.image).startswith(str(tmp_path / "lsp.zip"))


def test_lsp_splits(shared_data):
    spec = f"lsp:{shared_data / 'lsp_dataset.zip'}"
    train, test, everybody = (open_dataset(spec, split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(everybody)) == (1000, 500, 1500)
    assert str(test.samples[0].image).endswith("images/im1001.jpg")
    assert train.samples[0].image.decode().shape == (*train.samples[0].size, 3)
    occluded = np.mean([s.visible == 1 for s in everybody.samples])
    assert 0.05 < occluded < 0.1  # the publication's flag: 7 % are occluded


def test_lspet_column_is_labelled_and_other_coordinates_mean_nothing(tmp_path):
    joints = np.full((14, 3, 3), -50.0)  # coordinates of joints that are not labelled may be anything
    joints[:, 2] = 0
    joints[:4, 0, 0], joints[:4, 1, 0], joints[:4, 2, 0] = (10, 20, 30, 20), (5, 15, 5, 25), 1
    joints[5, :, 2] = 7, 8, 1
    for i in range(3):
        image_file(tmp_path / "images" / f"im{i + 1:05d}.jpg")
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": joints})
    data = open_dataset(f"lspet:{tmp_path}")
    assert len(data) == 2 and data.skipped == 1  # the second has no labels
    first, last = data.samples
    assert first.visible.tolist() == [2] * 4 + [0] * 10 and not first.keypoints[4:].any()
    np.testing.assert_allclose(first.box, (20 - 10.6, 15 - 10.6, 20 + 10.6, 15 + 10.6), rtol=1e-6)
    assert str(last.image).endswith("im00003.jpg") and last.visible.sum() == 2
    assert last.box == (6.0, 7.0, 8.0, 9.0)  # one joint: not empty


def test_lspet_real(shared_data):
    data = open_dataset(f"lspet:{shared_data / 'lspet_dataset.zip'}")
    assert len(data) == 10000 and data.skipped == 0
    assert 0.87 < np.mean([s.visible > 0 for s in data.samples]) < 0.89
    # One right knee of the official labels is 97 px to the right of its image.
    assert data.dropped_joints == 1
    person = next(s for s in data.samples if s.image.member.endswith("im08075.jpg"))
    assert person.visible[1] == 0 and person.box[2] < 130
    with pytest.raises(InputError, match="no people with labelled joints"):
        open_dataset(f"lspet:{shared_data / 'lspet_dataset.zip'}", "test")


# MPII


def test_mpii_cpm_json(tmp_path):
    image_file(tmp_path / "images" / "a.jpg")
    labels = [[0.0, 0.0, 0.0], [5.0, 6.0, 0.0], [7.0, 8.0, 1.0]] + [[0.0, 0.0, 0.0]] * 13
    path = write_json(tmp_path / "mpii.json", [cpm_person(joint_self=labels)])
    (sample,) = open_dataset(f"mpii:{path}").samples
    assert sample.visible.tolist() == [0, 1, 2] + [0] * 13  # (0, 0, 0) is no label; 0 elsewhere is occluded
    assert sample.keypoints[:3].tolist() == [[0, 0], [4, 5], [6, 7]]  # their pixels count from 1
    assert sample.center == (20.0, 10.0) and sample.scale == 0.1 and sample.size == (40, 60)
    np.testing.assert_allclose(sample.box, (10, 1.5, 30, 21.5))  # 200 scale, 15 scale lower


@pytest.mark.parametrize("count", [0, 1, 2])
def test_mpii_cpm_json_other_people(tmp_path, count):
    image_file(tmp_path / "a.jpg")
    one = [[3.0, 4.0, 1.0], [5.0, 6.0, 0.0]] + [[0.0, 0.0, 0.0]] * 14
    others = [cpm_person()["joint_others"], one, [one, one]][count]  # jsonlab un-nests a list of one
    path = write_json(tmp_path / "mpii.json", [cpm_person(joint_others=others, numOtherPeople=float(count))])
    (sample,) = open_dataset(f"mpii:{path}").samples
    assert sample.others.shape == (count, 16, 3)
    for person in sample.others:
        assert person[:3].tolist() == [[2, 3, 2], [4, 5, 1], [0, 0, 0]]


def test_mpii_cpm_json_splits(tmp_path):
    image_file(tmp_path / "a.jpg")
    people = [cpm_person(isValidation=v, scale_provided=s) for v, s in ((0.0, 1.0), (1.0, 2.0), (0.0, 3.0))]
    path = write_json(tmp_path / "mpii.json", people)
    scales = {
        split: [s.scale for s in open_dataset(f"mpii:{path}", split).samples] for split in ("train", "test", "all")
    }
    assert scales == {"train": [1, 3], "test": [2], "all": [1, 2, 3]}


def test_mpii_cpm_json_real(shared_data, tmp_path):
    """All 25,204 people; their images are not here, so this is the reader alone."""
    from pypose_ops.datasets.mpii import read_mpii

    path = shared_data / "mpii_joints.json.gz"
    everybody = read_mpii(path, "all")
    assert len(everybody) + everybody.skipped == 25204
    samples = everybody.samples
    assert sum((s.visible == 0).sum() for s in samples) + 16 * everybody.skipped == 27001
    records = json.loads(gzip.decompress(path.read_bytes()))
    assert sum(len(s.others) for s in samples) == sum(
        int(r["numOtherPeople"]) for r in records if any(any(j) for j in r["joint_self"])
    )


def test_mpii_msra_json(shared_data):
    data = open_dataset(f"mpii:{shared_data / 'people' / 'mpii' / 'test_mpii.json'}")
    truth = persons(shared_data, "mpii")
    assert len(data) == len(truth) == 5 and data.skeleton == MPII
    for sample, person in zip(data.samples, truth, strict=True):
        expected = np.array(person["keypoints_xyv"])
        assert str(sample.image).endswith(person["image"])
        seen = sample.visible > 0
        assert np.array_equal(seen, expected[:, 2] > 0)
        np.testing.assert_allclose(sample.keypoints[seen], expected[seen, :2], atol=6e-3)  # persons.json is rounded


def test_mpii_msra_json_missing_joints(tmp_path):
    image_file(tmp_path / "a.jpg")
    record = {"image": "a.jpg", "center": [21, 11], "scale": 0.1, "joints": [[-1.0, -1.0]] + [[5.0, 6.0]] * 15}
    records = [record | {"joints_vis": [v] + [1] * 14 + [0]} for v in (0, 1)] + [record | {"joints_vis": [0] * 16}]
    data = open_dataset(f"mpii:{write_json(tmp_path / 'mpii.json', records)}")
    assert len(data) == 2 and data.skipped == 1
    for sample in data.samples:
        assert sample.visible.tolist() == [0] + [2] * 14 + [0]
        assert sample.others.shape == (1, 16, 3) and sample.others[0, 1].tolist() == [4, 5, 2]


def mpii_mat(path, annorects, train=None):
    """A release with one image per list of people."""
    annolist = np.zeros(len(annorects), dtype=[("image", object), ("annorect", object)])
    for i, rects in enumerate(annorects):
        annolist[i] = ({"name": f"{i}.jpg"}, rects)
        image_file(path.parent / "images" / f"{i}.jpg", seed=i)
    release = {"annolist": annolist, "img_train": np.array(train or [1] * len(annorects))}
    scipy.io.savemat(path, {"RELEASE": release})
    return path


def structs(*dicts):
    """A struct array, as MATLAB has them; fields that one lacks are []."""
    names = list(dict.fromkeys(name for d in dicts for name in d))
    array = np.zeros(len(dicts), dtype=[(name, object) for name in names])
    for i, d in enumerate(dicts):
        array[i] = tuple(d.get(name, np.zeros((0, 0))) for name in names)
    return array


def test_mpii_mat(tmp_path):
    points = structs(
        {"x": 5.0, "y": 6.0, "id": 3, "is_visible": 1},
        {"x": 7.0, "y": 8.0, "id": 4, "is_visible": 0},
        {"x": 9.0, "y": 10.0, "id": 5, "is_visible": "1"},
        {"x": 11.0, "y": 12.0, "id": 6, "is_visible": "0"},
        {"x": 13.0, "y": 14.0, "id": 9, "is_visible": ""},
        {"x": 15.0, "y": 16.0, "id": 8, "is_visible": np.zeros((0, 0))},
    )
    single = structs({"x": 3.0, "y": 4.0, "id": 0})  # one joint, and no is_visible
    position = {"x": 21.0, "y": 11.0}
    head = {"x1": 2.0, "y1": 3.0, "x2": 8.0, "y2": 9.0}
    full = head | {"annopoints": {"point": points}, "scale": 0.1, "objpos": position}
    one = {"annopoints": {"point": single}, "scale": 0.2, "objpos": position}
    empty = {"scale": 0.2, "objpos": position}  # annopoints is [] or missing
    path = mpii_mat(tmp_path / "mpii.mat", [structs(full, one, empty), structs(one), structs(empty), np.zeros((0, 0))])
    data = open_dataset(f"mpii:{path}")
    assert len(data) == 3 and data.skipped == 2
    first, second, third = data.samples
    assert first.visible.tolist() == [0, 0, 0, 2, 1, 2, 1, 0, 2, 2] + [0] * 6
    assert first.keypoints[3].tolist() == [4, 5] and first.head == (1, 2, 7, 8) and first.center == (20, 10)
    np.testing.assert_allclose(first.box, (10, 1.5, 30, 21.5))
    assert first.others.shape == (1, 16, 3) and first.others[0, 0].tolist() == [2, 3, 2]
    assert second.others[0, 4].tolist() == [6, 7, 1] and second.head is None
    assert str(third.image).endswith("images/1.jpg") and third.others.shape == (0, 16, 3)


def test_mpii_mat_test_images_have_no_joints(tmp_path):
    person = {
        "annopoints": {"point": structs({"x": 3.0, "y": 4.0, "id": 0})},
        "scale": 0.2,
        "objpos": {"x": 2.0, "y": 2.0},
    }
    rects = [structs(person), structs({"scale": 0.2, "objpos": {"x": 2.0, "y": 2.0}})]
    path = mpii_mat(tmp_path / "mpii.mat", rects, train=[1, 0])
    assert len(open_dataset(f"mpii:{path}")) == 1
    with pytest.raises(InputError, match="no people with labelled joints"):
        open_dataset(f"mpii:{path}", "test")


# COCO and AI Challenger


def test_coco_real(shared_data):
    data = open_dataset(f"coco:{shared_data / 'people' / 'coco' / 'test_coco.json'}")
    truth = persons(shared_data, "coco")
    assert len(data) == 12 and data.skipped == 2 and data.skeleton == COCO
    by_place = {(p["image"], tuple(p["bbox_xywh"])): np.array(p["keypoints_xyv"]) for p in truth}
    for s in data.samples:
        place = f"coco/{s.image.path.rsplit('/')[-1]}", (s.box[0], s.box[1])
        (expected,) = [v for (name, box), v in by_place.items() if (name, box[:2]) == place]
        assert np.array_equal(s.visible, expected[:, 2])
        np.testing.assert_allclose(s.keypoints, expected[:, :2] * (expected[:, 2:] > 0))
    several = [s for s in data.samples if len(s.others)]
    assert several and all(len(s.others) == sum(o.image == s.image for o in data.samples) - 1 for s in data.samples)


def test_coco_crowds_and_people_without_joints(tmp_path):
    joints = [9, 8, 2, 7, 6, 1] + [0] * 45
    people = [coco_person(3, joints), coco_person(3, joints, iscrowd=1), coco_person(3, [0] * 51, num_keypoints=0)]
    data = open_dataset(f"coco:{coco_file(tmp_path / 'person_keypoints.json', people)}")
    assert len(data) == 1 and data.skipped == 1
    assert data.samples[0].box == (1, 2, 31, 22) and data.samples[0].visible.tolist() == [2, 1] + [0] * 15


def test_aic_both_forms(tmp_path):
    own = [v for k in range(14) for v in ((k, 2 * k, 1 + k % 2) if k else (0, 0, 3))]
    converted = [v for k in range(14) for v in ((k, 2 * k, 2 - k % 2) if k else (0, 0, 0))]
    coco_form = coco_file(tmp_path / "coco" / "aic.json", [coco_person(3, converted)])
    image_file(tmp_path / "own" / "a.jpg")
    record = {"image_id": "a", "url": "", "human_annotations": {"human1": [1, 2, 31, 22]}}
    record["keypoint_annotations"] = {"human1": own}
    path = write_json(tmp_path / "own" / "aic.json", [record])
    a, b = (open_dataset(f"aic:{p}").samples[0] for p in (path, coco_form))
    assert a.visible.tolist() == [0] + [1, 2] * 6 + [1]  # 1 is seen, 2 is occluded, 3 is not labelled
    assert np.array_equal(a.visible, b.visible) and np.array_equal(a.keypoints, b.keypoints) and a.box == b.box


def test_aic_real(shared_data, tmp_path):
    data = open_dataset(f"aic:{shared_data / 'people' / 'aic' / 'test_aic.json'}")
    truth = persons(shared_data, "aic")
    assert len(data) == len(truth) == 9 and data.skeleton == AIC
    for sample in data.samples:
        same = [np.array(p["keypoints_xyv"]) for p in truth if sample.image.path.endswith(p["image"])]
        expected = [np.array_equal(sample.visible, e[:, 2]) and np.allclose(sample.keypoints, e[:, :2]) for e in same]
        assert sum(expected) == 1


# Images elsewhere, orders of joints, validation


def test_images_elsewhere(tmp_path):
    path = coco_file(tmp_path / "a" / "coco.json", [coco_person(3, [9, 8, 2] * 17)])
    (tmp_path / "b").mkdir()
    shutil.move(path.parent / "a.jpg", tmp_path / "b" / "a.jpg")
    with pytest.raises(InputError, match="a.jpg: no such image"):
        open_dataset(f"coco:{path}")
    assert len(open_dataset(f"coco:{path},images={tmp_path / 'b'}")) == 1


def test_convert(tmp_path):
    data = open_dataset(f"lsp:{lsp_folder(tmp_path)}", skeleton=MPII)
    sample = data.samples[0]
    names = dict(zip(MPII.joints, sample.visible.tolist(), strict=True))
    assert names["pelvis"] == names["thorax"] == 0 and names["right_ankle"] == 1 and names["upper_neck"] == 2
    assert sample.keypoints[8].tolist() == [48, 24]  # LSP's neck, its joint 12
    assert sample.others.shape == (0, 16, 3)


def test_convert_keeps_the_others(tmp_path):
    people = [coco_person(3, [1, 2, 2] * 5 + [3, 4, 1] * 12) for _ in range(2)]
    data = open_dataset(f"coco:{coco_file(tmp_path / 'coco.json', people)}", skeleton=LSP)
    (other,) = data.samples[0].others
    assert other[LSP.joints.index("left_hip")].tolist() == [3, 4, 1] and other[12].tolist() == [0, 0, 0]


def test_hold_out_is_by_image_and_by_seed(tmp_path):
    data = open_dataset(f"lsp:{lsp_folder(tmp_path, 20)}")
    data = joined([data, data])  # two people in each image
    train, held = hold_out(data, 3, seed=1)
    assert len(train) == 34 and len(held) == 6
    assert not {s.image for s in train.samples} & {s.image for s in held.samples}
    assert hold_out(data, 3, seed=1)[1].samples == held.samples
    assert hold_out(data, 3, seed=2)[1].samples != held.samples
    assert len(hold_out(data, 200)[1]) == 8  # at most a fifth
