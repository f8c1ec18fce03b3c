"""ViTPose's and Sapiens2's processors with pypose_ops against transformers' own."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", exc_type=ImportError)
vitpose = pytest.importorskip("transformers.models.vitpose.image_processing_vitpose", exc_type=ImportError)
sapiens2 = pytest.importorskip("transformers.models.sapiens2.image_processing_sapiens2", exc_type=ImportError)

from pypose_ops import reference  # noqa: E402
from pypose_ops.integrations import transformers as ours  # noqa: E402

BOXES = [[[20.0, 30.0, 90.0, 200.0], [150.0, 40.0, 120.0, 110.0]], [[5.0, 10.0, 60.0, 180.0]]]
FLAT = [box for of_image in BOXES for box in of_image]


def maps_of(people, joints, size, sigma=2.0, seed=0):
    """Blobs with noise, away from the border and on it."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.rand(people, joints, 2, generator=generator) * (torch.tensor(size[::-1]) - 1)
    maps = reference.gaussian_heatmaps(at, sigma, size)
    return (maps * 0.9 + 0.02 * torch.rand(maps.shape, generator=generator)).float()


def image(height=240, width=320, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.kron(small, np.ones((8, 8, 1), np.uint8))


def flat(results):
    return [pose for of_image in results for pose in of_image]


def test_vitpose_crops():
    theirs = vitpose.VitPoseImageProcessor()
    mine = ours.fast_processor(theirs)
    images = [image(seed=0), image(seed=1)]
    expected, actual = (p(images, boxes=BOXES, return_tensors="pt").pixel_values for p in (theirs, mine))
    assert actual.shape == expected.shape == (3, 3, 256, 192)
    # scipy writes whole grey levels, and black from half a pixel outside of the image on, where OpenCV and we blend.
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(192.0), indexing="ij")
    to_image = ours.crop_transforms(torch.tensor(FLAT), (256, 192))
    at = torch.stack((x, y, torch.ones_like(x)), -1) @ to_image.mT[:, None]  # (3, 256, 192, 2)
    inside = ((at >= 0) & (at <= torch.tensor([319.0, 239.0]))).all(-1)[:, None].expand_as(actual)
    assert inside.float().mean() > 0.8
    assert (actual - expected)[inside].abs().max() < 1.01 / 255 / 0.22


@pytest.mark.parametrize("threshold", (None, 0.5))
def test_vitpose_poses(threshold):
    theirs = vitpose.VitPoseImageProcessor()
    mine = ours.fast_processor(theirs)
    outputs = SimpleNamespace(heatmaps=maps_of(3, 17, (64, 48)))
    expected, actual = (
        p.post_process_pose_estimation(outputs, boxes=BOXES, threshold=threshold) for p in (theirs, mine)
    )
    assert [len(v) for v in actual] == [2, 1]
    for a, e, box in zip(flat(actual), flat(expected), FLAT, strict=True):
        torch.testing.assert_close(a["keypoints"], e["keypoints"], rtol=0, atol=1e-3)
        torch.testing.assert_close(a["scores"], e["scores"])
        torch.testing.assert_close(a["labels"], e["labels"])
        left, top, width, height = box
        assert a["bbox"].tolist() == [left, top, left + width, top + height]


def test_vitpose_target_sizes_are_height_and_width():
    mine = ours.fast_processor(vitpose.VitPoseImageProcessor())
    outputs = SimpleNamespace(heatmaps=maps_of(3, 17, (64, 48)))
    relative = [[[x / 320, y / 240, w / 320, h / 240] for x, y, w, h in of_image] for of_image in BOXES]
    expected = mine.post_process_pose_estimation(outputs, boxes=BOXES)
    actual = mine.post_process_pose_estimation(outputs, boxes=relative, target_sizes=[(240, 320)] * 3)
    for a, e in zip(flat(actual), flat(expected), strict=True):
        torch.testing.assert_close(a["keypoints"], e["keypoints"], rtol=0, atol=1e-3)


def test_mirrored_maps_change_nothing():
    heatmaps = maps_of(3, 4, (64, 48))
    pairs = [(0, 1)]
    flipped = heatmaps.flip(-1)[:, [1, 0, 2, 3]]
    plain = flat(ours.post_process_pose_estimation(heatmaps, BOXES, (256, 192)))
    merged = flat(
        ours.post_process_pose_estimation(heatmaps, BOXES, (256, 192), heatmaps_flipped=flipped, flip_pairs=pairs)
    )
    for a, e in zip(merged, plain, strict=True):
        torch.testing.assert_close(a["keypoints"], e["keypoints"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("resized", (False, True))
def test_sapiens2_poses(resized):
    theirs = sapiens2.Sapiens2ImageProcessor()
    mine = ours.fast_processor(theirs)
    outputs = SimpleNamespace(heatmaps=maps_of(3, 20, (256, 192), sigma=6.0))
    sizes = {"source_sizes": [(240, 320)] * 2, "target_sizes": [(480, 320), (240, 640)]} if resized else {}
    expected, actual = (p.post_process_pose_estimation(outputs, boxes=BOXES, **sizes) for p in (theirs, mine))
    for a, e in zip(flat(actual), flat(expected), strict=True):
        for name in e:
            torch.testing.assert_close(a[name], e[name], rtol=0, atol=2e-3, msg=name)


def test_sapiens2_crops_and_targets():
    theirs = sapiens2.Sapiens2ImageProcessor(size={"height": 128, "width": 96})
    mine = ours.fast_processor(theirs)
    images = [image(seed=0), image(seed=1)]
    random = np.random.default_rng(0)
    keypoints = [[random.integers(-20, 240, (9, 3)).tolist() for _ in of_image] for of_image in BOXES]
    for of_image in keypoints:
        for person in of_image:
            for joint in person:
                joint[2] = joint[2] % 3
    given = {"boxes": BOXES, "keypoints": keypoints, "return_tensors": "pt"}
    expected, actual = (p(images, **given) for p in (theirs, mine))
    torch.testing.assert_close(actual["pixel_values"], expected["pixel_values"], rtol=0, atol=2e-3)
    flat_keypoints = torch.tensor([person for of_image in keypoints for person in of_image], dtype=torch.float32)
    maps, weights = ours.pose_targets(
        flat_keypoints[..., :2], torch.tensor(FLAT), (128, 96), (flat_keypoints[..., 2] > 0).float(), sigma=6.0
    )
    torch.testing.assert_close(maps, torch.as_tensor(expected["labels"]).reshape(maps.shape), rtol=0, atol=1e-4)
    torch.testing.assert_close(weights, torch.as_tensor(expected["label_weights"]).reshape(weights.shape))


@pytest.mark.parametrize("size", ((128, 96), (256, 192), (512, 384)))
def test_sapiens2_crops_enlarge_with_cubics(size):
    """None, one and all of the people are smaller than the crop."""
    theirs = sapiens2.Sapiens2ImageProcessor(size={"height": size[0], "width": size[1]})
    mine = ours.fast_processor(theirs)
    images = [np.random.default_rng(i).integers(0, 256, (240, 320, 3), np.uint8) for i in range(2)]
    expected, actual = (p(images, boxes=BOXES, return_tensors="pt").pixel_values for p in (theirs, mine))
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", (vitpose.VitPoseImageProcessor, sapiens2.Sapiens2ImageProcessor))
def test_fast_processors_are_saved_and_sent_to_workers(kind, tmp_path):
    mine = ours.fast_processor(kind(size={"height": 128, "width": 96}))
    again = pickle.loads(pickle.dumps(mine))
    assert again.size == mine.size and type(again).__name__ == kind.__name__
    expected, actual = (p([image()], boxes=BOXES[:1], return_tensors="pt").pixel_values for p in (mine, again))
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    mine.save_pretrained(tmp_path)
    assert type(kind.from_pretrained(tmp_path)) is kind


def test_the_loss_falls_where_the_maps_are_the_targets():
    keypoints = torch.tensor([[[60.0, 100.0], [70.0, 180.0]]])
    boxes = torch.tensor(FLAT[:1])
    at = ours.crop_keypoints(keypoints, boxes, (256, 192)) * torch.tensor([47 / 191, 63 / 255])
    right = reference.gaussian_heatmaps(at, 2.0, (64, 48)).float().requires_grad_()
    loss = ours.pose_loss(right, keypoints, boxes, (256, 192))
    loss.backward()
    assert loss < 1e-8 and right.grad.abs().max() < 1e-6
    assert ours.pose_loss(torch.zeros_like(right), keypoints, boxes, (256, 192)) > 1e-3


def test_other_processors_are_refused():
    with pytest.raises(TypeError, match="expected an image processor of ViTPose or Sapiens2, got dict"):
        ours.fast_processor({})


def most_allocated(call):
    """The most memory in bytes that a call holds in addition to its arguments."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    events = profile.profiler.kineto_results.events()
    return np.cumsum([0, *(event.nbytes() for event in events if event.name() == "[memory]")]).max()


@pytest.mark.parametrize("flip", (False, True))
def test_post_processing_holds_hardly_more_than_the_maps(flip):
    maps = maps_of(16, 17, (64, 48))
    options = {"heatmaps_flipped": maps_of(16, 17, (64, 48)), "flip_pairs": [(1, 2)]} if flip else {}
    boxes = [[[20.0, 30.0, 90.0, 200.0]] * 16]
    assert most_allocated(maps.clone) == maps.nbytes
    most = most_allocated(lambda: ours.post_process_pose_estimation(maps, boxes, (256, 192), **options))
    assert 0 < most <= 0.05 * maps.nbytes


def test_post_processing_reads_no_value_before_its_results():
    """Tensors on "meta" have no values: whatever reads one fails, as it would wait for a GPU."""
    maps = torch.empty(2, 17, 64, 48, device="meta")
    for options in ({}, {"heatmaps_flipped": maps, "flip_pairs": [(1, 2)]}):
        poses = ours.post_process_pose_estimation(maps, [[[20.0, 30.0, 90.0, 200.0]] * 2], (256, 192), **options)
        assert poses[0][1]["keypoints"].device.type == "meta"
