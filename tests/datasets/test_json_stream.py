"""Large JSON files, read piece by piece: the same values and refusals as of the whole, in less memory."""

import gzip
import json
import tracemalloc

import numpy as np
import pytest

from pypose_ops.datasets import json_stream
from pypose_ops.datasets.coco import read_people
from pypose_ops.datasets.files import load_json
from pypose_ops.errors import InputError


class Kept(list):
    """A list under another name."""

    def add(self, element):
        self.append(element)


def streamed(path):
    found = json_stream.stream_json(path, {"a": Kept, "b": Kept})
    kinds = {name: type(value) for name, value in found.items()} if isinstance(found, dict) else {}
    assert all((kinds.get(name) is Kept) == isinstance(found.get(name), list) for name in ("a", "b") if kinds)
    return found


VALUES = [
    {"a": [1, -12.5e3, "é\\\"]},{\u2028", None, True, [], {}, [{"x": [1]}, {"y": 2}]], "z": {"a": [1]}, "b": []},
    {"b": [{"n": n, "s": "{[" * n} for n in range(9)], "c": 12345, "a": [float("inf"), float("-inf"), 10**30]},
    {"a": {"b": 1}, "b": "text", "d": [1, 2]},
    {"a": [], "": 3},
    {}, [], [{"a": 1}], 3, "a", None,
]  # fmt: skip


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 18])
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_same_values_as_of_the_whole(tmp_path, monkeypatch, block, value):
    monkeypatch.setattr(json_stream, "BLOCK", block)
    path, text = tmp_path / "a.json", json.dumps(value, ensure_ascii=False)
    spaced = json.dumps(value, indent=1, separators=(" , ", "\r\n: "))
    for data in (
        text.encode(), spaced.encode(), b"\n" + text.encode() + b" \n", b"\xef\xbb\xbf" + text.encode(),
        text.encode("utf-16"), gzip.compress(text.encode()),
    ):  # fmt: skip
        path.write_bytes(data)
        assert streamed(path) == load_json(path) == value


@pytest.mark.parametrize("block", [1, 1 << 18])
def test_same_refusals_as_of_the_whole(tmp_path, monkeypatch, block):
    monkeypatch.setattr(json_stream, "BLOCK", block)
    path, data = tmp_path / "a.json", b'{"a": [{"x": 12}, 3], "c": "d", "b": [4]}'
    packed = gzip.compress(data)
    damaged = packed[:12] + bytes([packed[12] ^ 255]) + packed[13:]
    for broken in (
        *(data[:n] for n in range(len(data))), data + b"]", data.replace(b"3", b"3 3"), data.replace(b": 12", b" 12"),
        data.replace(b'"c"', b"c"), data.replace(b"[4]", b"[4,]"), data.replace(b"4", b"\xff"), packed[:-9], damaged,
        b'{"a": ' + b"[" * 100_000,
    ):  # fmt: skip
        path.write_bytes(broken)
        with pytest.raises(InputError) as one, open(path):
            load_json(path)
        with pytest.raises(InputError) as other:
            streamed(path)
        assert str(one.value) == str(other.value)
    path.write_bytes(b'{"a": [1], "a": [2]}')  # the last counts
    assert streamed(path) == {"a": [2]}


def coco(people, images):
    """Made-up annotations with an outline each, as in COCO's files."""
    random = np.random.default_rng(0)
    joints = random.integers(0, 400, (people, 17, 3))
    joints[..., 2] %= 3
    outlines = random.uniform(0, 400, (people, 40)).round(2).tolist()
    return {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": 400, "width": 400} for i in range(images)],
        "annotations": [
            {
                "segmentation": [outlines[n]], "iscrowd": 0, "area": 700.5, "keypoints": joints[n].ravel().tolist(),
                "image_id": n % images, "bbox": [1.5, 2.0, 30.0, 40.0], "category_id": 1, "id": n,
            }
            for n in range(people)
        ],
    }  # fmt: skip


def test_memory_is_at_most_twice_the_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "BLOCK", 1 << 12)  # as small to this file as the real one to COCO's
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco(2000, 500)))
    read_people(path)  # memory allocated only once
    tracemalloc.start()
    people = read_people(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    arrays = sum(v.nbytes for v in vars(people).values() if isinstance(v, np.ndarray))
    assert len(people) == 2000 and peak <= 2 * arrays


def test_annotations_before_images_and_other_joint_counts(tmp_path):
    """The same columns from the file and from its parsed content, of one category or all, regular or not."""
    content, path = coco(40, 10), tmp_path / "a.json"
    content = {"annotations": content["annotations"], "images": content["images"]}
    for record in content["annotations"][::3]:
        record |= {"category_id": 2, "keypoints": record["keypoints"][:15], "bbox": None, "area": "3"}
    content["annotations"][1] |= {"keypoints": [record["keypoints"][:3]] * 17, "image_id": "2"}
    content["annotations"][2] |= {"keypoints": [], "iscrowd": 1}
    content["categories"] = [
        {"id": 1, "name": "person"}, {"id": 2, "name": "hand", "keypoints": [f"k{k}" for k in range(5)]},
    ]  # fmt: skip
    path.write_text(json.dumps(content))
    for category, count in (("person", 26), ("hand", 14)):
        one = read_people(path, category=category)
        other = read_people(path, json.loads(path.read_text()), category=category)
        assert len(one) == count and one.notes == other.notes and one.images == other.images
        for name in ("keypoints", "boxes", "area", "has_area", "crowd", "category", "record", "image"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
