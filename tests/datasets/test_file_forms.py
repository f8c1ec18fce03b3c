"""Files as people's programs write them: the same meaning in training and evaluation, or one line that names them."""

import gzip
import json
import warnings
import zipfile

import numpy as np
import pytest
import scipy.io
from data_files import image_file
from PIL import Image

from pypose_ops.datasets import ImageError, ImageFile, open_dataset
from pypose_ops.datasets.coco import read_people
from pypose_ops.datasets.files import as_id, check_outputs, load_json, load_mat, load_npz, take, write_bytes
from pypose_ops.datasets.results import read_coco_pair
from pypose_ops.datasets.skeleton_files import (
    known_sigmas,
    plain_name,
    read_skeleton,
    skeleton_as_json,
    skeleton_from_category,
    skeleton_of_json,
)
from pypose_ops.errors import InputError
from pypose_ops.metrics import coco_ap_by_category
from pypose_ops.skeletons import AIC, COCO, LSP

JOINTS = [[10.0 + k, 5.0 + 2 * (k % 7), 2] for k in range(17)]


def annotation(number=1, joints=JOINTS, **more):
    values = [v for joint in joints for v in joint]
    box = [5.0, 2.0, 40.0, 30.0]
    return {"id": number, "image_id": 4, "category_id": 1, "bbox": box, "area": 700.0, "keypoints": values} | more


def content(annotations, names=COCO.joints, image=None):
    image = {"id": 4, "file_name": "a.png", "width": 60, "height": 40} | (image or {})
    categories = [{"id": 1, "name": "person", "keypoints": list(names), "skeleton": [[1, 2]]}]
    return {"images": [image], "annotations": annotations, "categories": categories}


@pytest.fixture
def write(tmp_path):
    image_file(tmp_path / "a.png")

    def written(value, name="truth.json"):
        path = tmp_path / name
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        return path

    return written


def both(write, annotations, **more):
    """Labelled joints in training, and AP of a perfect answer."""
    path = write(content(annotations, **more))
    answer = write([{"image_id": 4, "category_id": 1, "keypoints": annotation()["keypoints"], "score": 0.5}], "p.json")
    pair = read_coco_pair(answer, path)
    ap = coco_ap_by_category(pair.people, pair.pred_category, pair.category, pair.skeleton.sigmas)["AP"].item()
    return int(sum((s.visible > 0).sum() for s in open_dataset(f"coco:{path}").samples)), ap


HIDDEN = [*JOINTS[:16], [None, None, 0]]


@pytest.mark.parametrize(
    ("changed", "labelled"),
    [
        ({"keypoints": JOINTS}, 17),
        ({"joints": HIDDEN}, 16),
        ({"joints": [*JOINTS[:16], [float("nan"), float("nan"), 0]]}, 16),
        ({"joints": [*JOINTS[:16], [26.0, 9.0, 0.93]]}, 17),
        ({"joints": [*JOINTS[:16], [0.0, 0.0, -1]]}, 16),
        ({"joints": [*JOINTS[:16], [26.0, 9.0, 3]]}, 17),
        ({"joints": [*JOINTS[:16], [26.0, 9.0, float("inf")]]}, 17),
        ({"iscrowd": "0"}, 17),
        ({"iscrowd": None}, 17),
        ({"iscrowd": False}, 17),
        ({"area": "700"}, 17),
        ({"area": 0}, 17),
        ({"area": None}, 17),
        ({"bbox": [0, 0, 0, 0]}, 17),
        ({"bbox": [40, 30, -40, -30]}, 17),
        ({"bbox": [40, 30, 1e-300, 9]}, 17),
        ({"bbox": None}, 17),
        ({"category_id": "1"}, 17),
        ({"image_id": 4.0}, 17),
        ({"image_id": "4"}, 17),
        ({"image_id": "a.png"}, 17),
        ({"image_id": "a"}, 17),
    ],
)
def test_odd_fields_mean_the_same_to_training_and_evaluation(write, changed, labelled):
    joints = changed.pop("joints", JOINTS)
    found, ap = both(write, [annotation(joints=joints, **changed)])
    assert found == labelled and ap == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"iscrowd": "many"}, "annotation 0: iscrowd must be 0 or 1"),
        ({"bbox": [1, 2, 3]}, "annotation 0: bbox must be 4 finite numbers.*id 9"),
        ({"bbox": [1, 2, 3, float("nan")]}, "annotation 0: bbox must be 4 finite numbers"),
        ({"bbox": [1e20, 2, 3, 4]}, "annotation 0: bbox reaches to 1e.20 px"),
        ({"image_id": "x" * 5000}, "annotation 0 has an unknown image_id"),
        ({"area": "large"}, "annotation 0: area must be a number"),
        ({"image_id": 7}, "annotation 0 has an unknown image_id 7 .id 9"),
        ({"image_id": [4]}, "annotation 0: image_id must be a number or a string"),
        ({"keypoints": [[1, 2]] * 17}, "expected 17 keypoints x, y, visibility for annotation 9"),
        ({"keypoints": "abc"}, "expected 17 keypoints x, y, visibility for annotation 9"),
        ({"keypoints": [10**400] * 51}, "expected 17 keypoints"),
        ({"keypoints": [float("nan"), 1, 2] * 17}, "nose of annotation 0 is labelled and not finite"),
        ({"category_id": [1]}, "annotation 0: category_id must be a number or a string"),
    ],
)
def test_one_line_names_file_and_annotation(write, changed, message):
    path = write(content([annotation(9, **changed)]))
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(f"coco:{path}")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_repeated_ids_are_counted_in_training_and_refused_in_evaluation(write):
    note = "annotations have the id of another; all are kept"
    for ids, count in {(1, 1): 1, (1, 2): 0, ("a", "a"): 1, ("1", 1): 1, (None, None): 0}.items():
        path = write(content([annotation(n) for n in ids]))
        assert open_dataset(f"coco:{path}").notes[note] == count
        if count:
            with pytest.raises(InputError, match="annotation 1: id .* comes twice"):
                read_people(path, once=True)


def test_annotations_without_keypoints_are_counted(write):
    boxes = [annotation(2, category_id=5), annotation(3, iscrowd=1)]
    for box in boxes:
        del box["keypoints"]
    data = open_dataset(f"coco:{write(content([annotation(), *boxes]))}")
    assert len(data) == 1 and data.notes["annotations without keypoints, skipped"] == 1


@pytest.mark.parametrize("size", [{"width": 0, "height": 0}, {"width": None}, {"width": -1, "height": -1}])
def test_sizes_that_are_not_known(write, size):
    assert open_dataset(f"coco:{write(content([annotation()], image=size))}").samples[0].size == (40, 60)


def test_another_image_under_the_name(write):
    for width, height in ((61, 40), (40, 60)):
        path = write(content([annotation()], image={"width": width, "height": height}))
        with pytest.raises(InputError, match=f"a.png: 60x40 pixels; coco:.* says {width}x{height}"):
            open_dataset(f"coco:{path}")


def test_forms_of_json(write):
    text = json.dumps(content([annotation()])).encode()
    for data in (text, b"\xef\xbb\xbf" + text, gzip.compress(text), text.decode().encode("utf-16")):
        assert len(read_people(write(data))) == 1
    for data, message in ((b"[" * 100_000, "nested too deep"), (b"\xff\xff", "not json"), (b"", "not json")):
        with pytest.raises(InputError, match=message):
            load_json(write(data))


def test_what_would_unpack_to_gigabytes_is_refused(write, tmp_path, monkeypatch):
    """With a limit of 64 KiB in the place of 256 MiB."""
    monkeypatch.setattr("pypose_ops.datasets.files.UNPACKED", 1 << 16)
    large = bytes(4 << 20)
    with pytest.raises(InputError, match="unpack to more than"):
        load_json(write(gzip.compress(large, 1), "large.json.gz"))
    np.savez_compressed(tmp_path / "large.npz", maps=np.frombuffer(large, np.uint8))
    with pytest.raises(InputError, match="large.npz: unpacks to 4,194"):
        load_npz(tmp_path / "large.npz")
    with zipfile.ZipFile(tmp_path / "lsp.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("joints.mat", large)
        archive.writestr("images/im0001.jpg", large)
    with pytest.raises(InputError, match="lsp.zip/joints.mat: .* bytes that unpack to 4,194,304; refused"):
        open_dataset(f"lsp:{tmp_path / 'lsp.zip'}")
    with pytest.raises(ImageError, match="im0001.jpg: .* bytes that unpack to 4,194,304; refused"):
        ImageFile(str(tmp_path / "lsp.zip"), "images/im0001.jpg").decode()


def test_arrays_of_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, big=np.arange(3, dtype=">f4"), objects=np.array(["a", 1], object))
    arrays = load_npz(path)
    assert arrays["big"].dtype.isnative and arrays["big"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="objects is an array of Python objects"):
        take(arrays, "objects", path)
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(InputError, match="expected an npz file"):
        load_npz(tmp_path / "b.npy")


def test_mat_of_hdf5(tmp_path):
    path = tmp_path / "joints.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file, HDF5".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match="MATLAB 7.3"):
        load_mat(path)


def hdf5(path, **arrays):
    """A .mat file as MATLAB 7.3 writes it: HDF5 behind a header of 512 bytes, axes reversed."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            if values is None:
                file.create_group(name)
            else:
                file[name] = values.T
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + path.read_bytes()[512:])


def test_arrays_of_hdf5_are_read(tmp_path):
    joints = np.arange(14 * 3 * 2.0).reshape(14, 3, 2)
    hdf5(tmp_path / "joints.mat", joints=joints)
    assert np.array_equal(load_mat(tmp_path / "joints.mat")["joints"], joints)
    with pytest.raises(InputError, match="no people.*1 file of MATLAB 7.3 .HDF5., whose axes are reversed"):
        open_dataset(f"lspet:{tmp_path}")
    hdf5(tmp_path / "release.mat", RELEASE=None)
    with pytest.raises(InputError, match="without arrays of numbers; structs are read of -v7"):
        open_dataset(f"mpii:{tmp_path / 'release.mat'}")


def test_compressed_variables_that_would_grow(tmp_path, monkeypatch):
    monkeypatch.setattr("pypose_ops.datasets.files.UNPACKED", 1 << 16)
    path, cell = tmp_path / "a.mat", np.empty((1, 1), object)
    cell[0, 0] = np.zeros(1 << 18)  # in a cell: the list of variables does not say so
    scipy.io.savemat(path, {"joints": cell}, do_compression=True)
    with pytest.raises(InputError, match="a.mat: .* unpacks to more than .* refused"):
        load_mat(path)
    scipy.io.savemat(path, {"joints": np.zeros(100)}, do_compression=True)
    assert load_mat(path)["joints"].size == 100


@pytest.mark.parametrize(
    ("value", "key"), [(139, 139), (139.0, 139), ("139", 139), ("0139", "0139"), ("a.jpg", "a.jpg"), ([1], None)]
)
def test_ids(value, key):
    assert as_id(value) == key


# Where images are


@pytest.mark.parametrize("name", ["C:\\data\\set\\a.png", "/mnt/other/set/a.png", "set/a.png", "set\\a.png"])
def test_names_of_another_machine(write, name):
    data = open_dataset(f"coco:{write(content([annotation()], image={'file_name': name}))}")
    assert data.samples[0].image.exists()
    assert data.notes["images found by the end of their names, without the folders before"] == 1


def test_one_image_is_not_that_of_two_names(write, tmp_path):
    value = content([annotation(1), annotation(2, image_id=5)])
    value["images"] = [{"id": 4, "file_name": "one/a.png"}, {"id": 5, "file_name": "two/a.png"}]
    with pytest.raises(InputError, match='a.png: could be "one/a.png" or "two/a.png"'):
        open_dataset(f"coco:{write(value)}")
    image_file(tmp_path / "images" / "one" / "a.png")
    image_file(tmp_path / "images" / "two" / "a.png")
    assert [str(s.image).split("/")[-2] for s in open_dataset(f"coco:{write(value)}").samples] == ["one", "two"]


# Whose joints


def test_names_of_joints_decide(write):
    named = [f"{'Left' if n.startswith('left') else 'Right'}{n.split('_')[1].title()}" if "_" in n else n.title()
             for n in COCO.joints]  # fmt: skip
    assert read_people(write(content([annotation()], names=named))).skeleton == COCO
    mixed = [*COCO.joints[5:], *COCO.joints[:5]]
    skeleton = read_people(write(content([annotation()], names=mixed))).skeleton
    assert skeleton.joints == tuple(mixed) and skeleton.sigmas[0] == COCO.sigmas[5]
    assert (0, 1) in skeleton.flip_pairs and skeleton.edges == ((0, 1),)
    own = read_people(write(content([annotation()], names=[f"k{k}" for k in range(17)]))).skeleton
    assert own.sigmas is None and len(own) == 17


def test_joints_without_names(write, tmp_path):
    """The format's own, said so; other numbers by the user's skeleton; another data set's of the same number never."""
    value = content([annotation()]) | {"categories": []}
    assert open_dataset(f"coco:{write(value)}").notes["people without names of joints in the file, taken as coco"] == 1
    (tmp_path / "own.toml").write_text('joints = ["a", "b", "c", "d"]')
    own = read_skeleton(tmp_path / "own.toml")
    path = write(content([annotation(joints=JOINTS[:4])]) | {"categories": []})
    assert open_dataset(f"coco:{path}", skeleton=own).skeleton == own
    with pytest.raises(InputError, match="got 12 numbers; other joints need names in the categories"):
        open_dataset(f"coco:{path}")
    path = write(content([annotation(joints=JOINTS[:14])]) | {"categories": []})
    assert open_dataset(f"aic:{path}").skeleton == AIC
    with pytest.raises(InputError, match="expected 17 keypoints"):
        open_dataset(f"coco:{path}", skeleton=LSP)


def test_crowdpose_is_not_ai_challenger():
    names = [*COCO.joints[5:], "head", "neck"]
    assert known_sigmas(names)[-1] == 0.079 and known_sigmas(AIC.joints) is None
    assert plain_name("Left Shoulder") == plain_name("l_shoulder") == plain_name("shoulder_left") == "left_shoulder"


def test_categories_of_other_joints_must_be_chosen(write):
    value = content([annotation(), annotation(2, category_id=2, joints=JOINTS[:3])])
    value["categories"].append({"id": 2, "name": "hand", "keypoints": ["a", "b", "c"]})
    path = write(value)
    with pytest.raises(InputError, match="person .17 joints. and hand .3 joints."):
        open_dataset(f"coco:{path}")
    assert len(open_dataset(f"coco:{path},category=hand").skeleton) == 3
    with pytest.raises(InputError, match="no category 'foot'"):
        open_dataset(f"coco:{path},category=foot")


def test_categories_are_matched_within_and_averaged(write):
    other = annotation(2, category_id=2, joints=[[x + 15, y, v] for x, y, v in JOINTS])
    value = content([annotation(), other])
    value["categories"].append(value["categories"][0] | {"id": 2, "name": "rider"})
    path = write(value)
    wrong = {"image_id": 4, "category_id": 1, "keypoints": other["keypoints"], "score": 0.9}
    right = {"image_id": 4, "category_id": 1, "keypoints": annotation()["keypoints"], "score": 0.5}
    pair = read_coco_pair(write([right, wrong], "p.json"), path)
    # Of persons the better-scored answer is somebody's of another category: a precision of 1/2. No riders were found.
    ap = coco_ap_by_category(pair.people, pair.pred_category, pair.category)["AP"].item()
    assert ap == pytest.approx(0.25)
    assert len(read_coco_pair(write([right, wrong], "p.json"), path, "person").category) == 1


def test_skeletons_in_toml_and_metadata(tmp_path):
    path = tmp_path / "hand.toml"
    path.write_text(
        'joints = ["wrist", "left_a", "right_a"]\nedges = [["wrist", "left_a"]]\nnorm = [0, 2]\nsigmas = [1, 2, 3]'
    )
    skeleton = read_skeleton(path)
    assert skeleton.name == "hand" and skeleton.flip_pairs == ((1, 2),) and skeleton.norm == (0, 2)
    assert skeleton_of_json(json.loads(json.dumps(skeleton_as_json(skeleton))), "w") == skeleton
    assert skeleton_as_json(COCO) == "coco" and skeleton_of_json("coco", "w") is COCO
    for text, message in {
        "joints = 3": "joints must be a list of names",
        'joints = ["a", "a"]': "'a' comes twice",
        'joints = ["a", "b"]\nedges = [[0, 2]]': "is no joint",
        'joints = ["a", "b"]\nsigmas = [1]': "sigmas must be 2 positive numbers",
        'joints = ["a"]\nlimbs = 3': "unknown limbs",
        "joints": "not TOML",
    }.items():
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_skeleton(path)
    assert skeleton_from_category({"name": "x"}) is None


# Images


def test_exif_is_applied_everywhere(tmp_path):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[3, 4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "a.png", exif=exif)
    image = ImageFile(str(tmp_path / "a.png"))
    assert image.size() == (20, 30) and np.array_equal(image.decode().numpy(), pixels)


@pytest.mark.parametrize("kind", ["uint16.png", "uint16.tif", "float32.tif", "uint8.png"])
def test_every_depth_of_grey(tmp_path, kind):
    grey = np.linspace(0, 255, 64).round()[None].repeat(8, 0)
    values = {"uint16": grey * 257, "float32": grey / 255, "uint8": grey}[kind.split(".")[0]]
    Image.fromarray(values.astype(kind.split(".")[0])).save(tmp_path / kind)
    found = ImageFile(str(tmp_path / kind)).decode().numpy()
    assert found.dtype == np.uint8 and np.abs(found - grey[..., None]).max() <= 1


def test_images_that_are_refused(tmp_path, monkeypatch):
    Image.fromarray(np.full((8, 8), 1000.0, np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ImageError, match="floating-point values from 1000 to 1000"):
        ImageFile(str(tmp_path / "f.tif")).decode()
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with warnings.catch_warnings(), pytest.raises(ImageError, match="floating-point values from nan to nan"):
        warnings.simplefilter("error")
        ImageFile(str(tmp_path / "nan.tif")).decode()
    monkeypatch.setattr("pypose_ops.datasets.images.PIXELS", 100)
    image_file(tmp_path / "a.png")
    with pytest.raises(ImageError, match="60x40 pixels, which are too many"):
        ImageFile(str(tmp_path / "a.png")).decode()


# Writing


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_bytes(path, b"before")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(InputError, match="a: cannot be written .No space left on device"):
        write_bytes(path, b"after")
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_nothing_is_written_over_what_is_read(tmp_path):
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "b.json").symlink_to(tmp_path / "a.json")
    with pytest.raises(InputError, match="would be overwritten"):
        check_outputs([tmp_path / "b.json"], [tmp_path / "a.json"])
    check_outputs([tmp_path / "c.json"], [tmp_path / "a.json", None])


def test_a_line_stays_one(write):
    error = InputError(f"a.json: category {'n' * 5000}\nhas\n no joints")
    assert str(error) == f"a.json: category {'n' * 400}... has no joints"
    assert len(str(InputError("word " * 5000))) < 1000
