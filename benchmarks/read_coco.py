"""Reading COCO's annotations: time and memory, against NumPy with the json module, and with orjson if installed.

    python benchmarks/read_coco.py                      # 250,000 people in 64,000 images, as in COCO's training split

The file is made up, of the real one's size and fields. Each reader runs in a process of its own.
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

JOINTS = 17


def made_up(path, people, images):
    """Writes a file like COCO's person_keypoints_train2017.json."""
    random = np.random.default_rng(0)
    joints = random.integers(0, 640, (people, JOINTS, 3))
    joints[..., 2] %= 3
    outlines, boxes = random.uniform(0, 640, (people, 50)).round(2), random.uniform(1, 300, (people, 4)).round(2)
    url = "http://images.cocodataset.org/train2017"
    content = {
        "images": [
            {
                "license": 3, "file_name": f"{i:012d}.jpg", "coco_url": f"{url}/{i:012d}.jpg", "height": 480,
                "width": 640, "date_captured": "2013-11-14 17:02:52", "flickr_url": "http://farm9.staticflickr.com/8186/8119368305.jpg",
                "id": i,
            }
            for i in range(images)
        ],
        "annotations": [
            {
                "segmentation": [outlines[n].tolist()], "num_keypoints": int((joints[n, :, 2] > 0).sum()), "iscrowd": 0,
                "area": float(boxes[n, 2] * boxes[n, 3] / 2), "keypoints": joints[n].ravel().tolist(),
                "image_id": n % images, "bbox": boxes[n].tolist(), "category_id": 1, "id": n + 1,
            }
            for n in range(people)
        ],
        "categories": [{"id": 1, "name": "person"}],
    }  # fmt: skip
    path.write_text(json.dumps(content))


def by_json(path, loads=json.loads):
    annotations = loads(path.read_bytes())["annotations"]
    return [np.array([a[name] for a in annotations], np.float64) for name in ("keypoints", "bbox", "area", "image_id")]


def by_orjson(path):
    import orjson

    return by_json(path, orjson.loads)


def by_reader(path):
    from pypose_ops.datasets.coco import read_people

    return read_people(path)


READERS = {"json": by_json, "orjson": by_orjson, "reader": by_reader}


def held():
    """Bytes in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(name, path):
    """Seconds of computing, and MiB: at most while reading, afterwards, and of the arrays."""
    reader = READERS[name]
    if name == "reader":
        import pypose_ops.datasets.coco  # noqa: F401  not counted
    before, start = held(), time.process_time()
    result = reader(path)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    values = result if isinstance(result, list) else vars(result).values()
    arrays = sum(v.nbytes for v in values if isinstance(v, np.ndarray))
    print(json.dumps([seconds, *((n / 2**20) for n in (peak - before, held() - before, arrays))]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=250_000)
    parser.add_argument("--images", type=int, default=64_000)
    parser.add_argument("--file", type=Path, help="read this one")
    parser.add_argument("--measure", choices=READERS, help="this reader alone, in this process")
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure, options.file)
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / "coco.json"
        if options.file is None:
            made_up(path, options.people, options.images)
        rows = {}
        for name in READERS:
            if name == "orjson" and importlib.util.find_spec(name) is None:
                continue
            command = [sys.executable, __file__, "--measure", name, "--file", str(path)]
            rows[name] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for name, (seconds, peak, after, arrays) in rows.items():
        print(f"{name}: {seconds:.2f} s, at most {peak:.0f} MiB, {after:.0f} afterwards, arrays of {arrays:.0f}")
    seconds, peak, after, arrays = rows.pop("reader")
    for name, row in rows.items():
        print(f"reader / {name} and NumPy: {seconds / row[0]:.2f} of the time")
    print(f"memory of the reader / its arrays: at most {peak / arrays:.2f}, {after / arrays:.2f} afterwards")


if __name__ == "__main__":
    main()
