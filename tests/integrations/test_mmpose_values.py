"""The codecs under MMPose's names give what an installed MMPose gives."""

import inspect

import numpy as np
import pytest
import torch

peer = pytest.importorskip("mmpose.codecs", exc_type=ImportError)

from mmpose.registry import KEYPOINT_CODECS  # noqa: E402

from pypose_ops.integrations import mmpose as ours  # noqa: E402

GRID = {"input_size": (192, 256), "heatmap_size": (48, 64)}
SQUARE = {"input_size": (512, 512), "heatmap_size": (128, 128)}
ONE = {
    "msra": ("MSRAHeatmap", GRID | {"sigma": 2}),
    "msra, window off": ("MSRAHeatmap", GRID | {"sigma": 1.5}),
    "dark": ("MSRAHeatmap", GRID | {"sigma": 2, "unbiased": True}),
    "dark, sigma 3": ("MSRAHeatmap", GRID | {"sigma": 3, "unbiased": True, "blur_kernel_size": 17}),
    "udp": ("UDPHeatmap", GRID | {"sigma": 2}),
    "udp combined": ("UDPHeatmap", GRID | {"heatmap_type": "combined"}),
    **{f"megvii {k}": ("MegviiHeatmap", GRID | {"kernel_size": k}) for k in (5, 7, 9, 11, 15, 17, 23)},
    "regression": ("RegressionLabel", {"input_size": (192, 256)}),
    "integral": ("IntegralRegressionLabel", GRID | {"sigma": 2.0, "normalize": True}),
    "dsnt": ("IntegralRegressionLabel", GRID | {"sigma": 2.0, "normalize": False, "unbiased": True}),
    "simcc": ("SimCCLabel", {"input_size": (192, 256), "sigma": 6.0, "normalize": False}),
    "rtmpose": ("SimCCLabel", {"input_size": (192, 256), "sigma": (4.9, 5.66), "use_dark": True}),
    "rtmw": (
        "SimCCLabel",
        {"input_size": (192, 256), "sigma": (4.9, 5.66), "normalize": False, "decode_visibility": True},
    ),
    "rtmw, beta": ("SimCCLabel", {"input_size": (192, 256), "decode_visibility": True, "decode_beta": 2.0}),
    "simcc smoothed": (
        "SimCCLabel",
        {"input_size": (192, 256), "smoothing_type": "standard", "label_smooth_weight": 0.1, "simcc_split_ratio": 3.0},
    ),
}


def pair(name, config):
    return getattr(peer, name)(**config), getattr(ours, name)(**config)


def people(count=1, size=(192, 256), beyond=30.0, seed=0):
    """Keypoints in and around the input, on its border, and just outside; visibilities of all kinds."""
    random = np.random.default_rng(seed)
    span = np.array(size, np.float32)
    keypoints = (random.random((count, 40, 2)) * (span + 2 * beyond) - beyond).astype(np.float32)
    keypoints[0, :6] = [[0, 0], span - 1, [-9.3, 60], [8, 8], [-1.9, 3], [span[0] + 9.3, 60]]
    visible = random.choice(np.array([0, 0.4, 0.5, 1, 2], np.float32), (count, 40))
    visible[0, :6] = 1
    return keypoints, visible


def assert_same(actual, expected, atol):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert np.shape(actual[name]) == np.shape(value), name
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("name", ONE)
def test_targets_and_weights(name):
    theirs, mine = pair(*ONE[name])
    for seed in range(5):
        keypoints, visible = people(seed=seed)
        expected = theirs.encode(keypoints.copy(), visible.copy())
        assert_same(mine.encode(keypoints, visible), expected, 1e-5 * (255 if "megvii" in name else 1))


# Blurred again, a clean label of these kernels has equal neighbours for us, and by the rounding of OpenCV's rows not so
# for MMPose, which then adds a quarter of a pixel.
ROUNDED_BY_OPENCV = ("megvii 11", "megvii 17", "megvii 23")


@pytest.mark.parametrize("name", ONE)
def test_decoded_targets(name):
    theirs, mine = pair(*ONE[name])
    for seed in range(5):
        keypoints, _ = people(seed=seed, beyond=-12.0)
        keypoints = keypoints[:, 6:]
        encoded = theirs.encode(keypoints, np.ones((1, 34), np.float32))
        first = [v for k, v in encoded.items() if k != "keypoint_weights"]
        first = first[:1] if "SimCC" not in type(theirs).__name__ else first
        actual, expected = mine.decode(*first), theirs.decode(*(v.copy() for v in first))
        if name in ROUNDED_BY_OPENCV:
            pixel, reach = np.floor(keypoints / 4), theirs.kernel_size
            whole = (pixel >= reach) & (pixel < np.array((48, 64)) - reach)  # on this axis no border deforms the blob
            np.testing.assert_array_equal(actual[0][whole], ((pixel + 0.5) * 4)[whole])
            assert whole.any() and np.abs(expected[0] - actual[0]).max() <= 1.0
            continue
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_allclose(np.array(a), np.array(e), rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ONE)
def test_decoded_noise(name):
    theirs, mine = pair(*ONE[name])
    random = np.random.default_rng(3)
    if "SimCC" in type(theirs).__name__:
        bins = [round(n * theirs.simcc_split_ratio) for n in (192, 256)]
        encoded = [random.random((1, 17, n)).astype(np.float32) for n in bins]
    elif "Label" in type(theirs).__name__:
        encoded = [random.random((1, 17, 4)).astype(np.float32)]
    else:
        encoded = [random.random((51 if "combined" in name else 17, 64, 48)).astype(np.float32)]
        encoded[0] *= 255 if "megvii" in name else 1
    coords, scores = mine.decode(*encoded)
    expected, expected_scores = theirs.decode(*(v.copy() for v in encoded))
    np.testing.assert_allclose(np.array(scores), np.array(expected_scores), rtol=1e-4, atol=1e-6)
    # A step out of the input divides by next to nothing: only where it goes is the same.
    inside = ((expected >= 0) & (expected <= (192, 256))).all(-1)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(coords[inside], expected[inside], rtol=0, atol=2e-2)
    np.testing.assert_allclose(coords, expected, rtol=5e-3, atol=2e-2)


@pytest.mark.parametrize(
    "name", [name for name in ONE if ONE[name][0] not in ("RegressionLabel", "IntegralRegressionLabel")]
)
def test_outputs_that_are_never_positive(name):
    """Of a network without an activation: no joint is found, and MMPose's scores are the maxima."""
    theirs, mine = pair(*ONE[name])
    random = np.random.default_rng(8)
    if "SimCC" in type(theirs).__name__:
        bins = [round(n * theirs.simcc_split_ratio) for n in (192, 256)]
        encoded = [random.random((1, 17, n)).astype(np.float32) - 1.5 for n in bins]
    else:
        encoded = [random.random((51 if "combined" in name else 17, 64, 48)).astype(np.float32) - 1.5]
    coords, scores = mine.decode(*encoded)
    expected, expected_scores = theirs.decode(*(v.copy() for v in encoded))
    np.testing.assert_allclose(np.array(scores), np.array(expected_scores), rtol=1e-4, atol=1e-5)
    if "combined" not in name and "dark" not in name and name not in ("udp", "rtmpose"):
        np.testing.assert_allclose(coords, expected, rtol=1e-5)


def test_weights_have_the_dtype_of_visibilities():
    keypoints, visible = people()
    for name in ("msra", "udp", "simcc", "megvii 11", "regression", "integral"):
        for dtype in (np.float64, np.float32, np.int64):
            theirs, mine = pair(*ONE[name])
            weights, expected = (c.encode(keypoints, visible.astype(dtype))["keypoint_weights"] for c in (mine, theirs))
            assert weights.dtype == expected.dtype, name
            np.testing.assert_allclose(weights, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ONE)
def test_arguments_and_attributes_are_mmposes(name):
    theirs, mine = pair(*ONE[name])
    wanted = list(inspect.signature(type(theirs)).parameters)
    assert list(inspect.signature(mine.wrapped).parameters)[: len(wanted)] == wanted
    for attribute, value in vars(theirs).items():
        if not attribute.endswith("_codec"):
            np.testing.assert_array_equal(getattr(mine, attribute), value, err_msg=attribute)
    for table in ("auxiliary_encode_keys", "instance_mapping_table", "field_mapping_table", "label_mapping_table"):
        assert getattr(mine, table) == getattr(theirs, table)


@pytest.mark.parametrize("name", ONE)
def test_batches_decode_as_their_images(name):
    _, mine = pair(*ONE[name])
    encoded = [mine.encode(people(seed=seed, beyond=-3.0)[0]) for seed in range(3)]
    keys = [k for k in encoded[0] if k != "keypoint_weights"]
    keys = keys if "SimCC" in type(mine).__name__ else keys[:1]
    images = [[torch.from_numpy(e[k][0] if e[k].ndim == mine.batch_dims else e[k]) for k in keys] for e in encoded]
    batch = [torch.stack(part).requires_grad_() for part in zip(*images, strict=True)]
    coords, scores = mine.batch_decode(*batch)
    assert len(coords) == 3
    for i, image in enumerate(images):
        one, score = mine.decode(*(part.numpy() for part in image))
        np.testing.assert_allclose(coords[i], one, atol=1e-5)
        per_image = [part[i] for part in scores] if isinstance(scores, tuple) else scores[i]
        np.testing.assert_allclose(np.array(per_image), np.array(score), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ONE if "Heatmap" in ONE[name][0]])
@pytest.mark.parametrize("size", ((32, 24), (80, 96)))
def test_maps_of_another_size(name, size):
    """Heads enlarge maps and test at other sizes; the codec scales by its own."""
    theirs, mine = pair(*ONE[name])
    maps = np.random.default_rng(4).random((51 if "combined" in name else 17, *size)).astype(np.float32) + 1
    maps = np.stack([peer.utils.gaussian_blur(part[None], 11)[0] for part in maps])  # steps of a pixel, not of the map
    maps *= 255 if "megvii" in name else 1
    coords, scores = mine.decode(maps)
    expected, expected_scores = theirs.decode(maps.copy())
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4)
    np.testing.assert_allclose(coords, expected, rtol=5e-3, atol=2e-2)


def test_vectors_of_another_length():
    theirs, mine = pair(*ONE["rtmpose"])
    vectors = [np.random.default_rng(5).random((1, 17, n)).astype(np.float32) for n in (100, 300)]
    for actual, expected in zip(mine.decode(*vectors), theirs.decode(*(v.copy() for v in vectors)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=5e-3, atol=2e-2)


@pytest.mark.parametrize("use_udp", (False, True))
def test_people_in_maps_of_another_size(use_udp):
    config = SQUARE | {"use_udp": use_udp, "decode_keypoint_order": [0, 1], "decode_center_shift": 0.5}
    theirs, mine = pair("AssociativeEmbedding", config)
    maps, tags = torch.zeros(1, 2, 160, 96), torch.zeros(1, 2, 160, 96)
    for n, (x, y) in enumerate(((20.0, 30.0), (70.0, 120.0))):
        grid = torch.meshgrid(torch.arange(160.0), torch.arange(96.0), indexing="ij")
        for k in range(2):
            blob = torch.exp(-((grid[1] - x - 5 * k) ** 2 + (grid[0] - y - 2.3) ** 2) / 8)
            maps[0, k] = torch.maximum(maps[0, k], blob * (1 - 0.2 * n))
            tags[0, k][blob > 0.01] = 5.0 * n + 1
    for actual, expected in zip(mine.batch_decode(maps, tags), theirs.batch_decode(maps, tags), strict=True):
        np.testing.assert_allclose(actual[0], expected[0], rtol=1e-4, atol=2e-2)


def test_regression_heads_have_instances():
    labels = torch.rand(4, 2, 17, 4)
    coords, scores = ours.RegressionLabel((192, 256)).batch_decode(labels)
    expected, expected_scores = peer.RegressionLabel((192, 256)).decode(labels[1].numpy())
    assert len(coords) == 4 and coords[1].shape == (2, 17, 2)
    np.testing.assert_allclose(coords[1], expected, rtol=1e-6)
    np.testing.assert_allclose(scores[1], expected_scores, rtol=1e-6)


def test_megviis_map_without_a_peak_is_missing():
    coords, scores = ours.MegviiHeatmap(**GRID, kernel_size=11).decode(np.zeros((2, 64, 48), np.float32))
    assert (scores == 0).all() and (coords == -4).all()


@pytest.mark.parametrize("use_udp", (False, True))
def test_associative_targets(use_udp):
    config = SQUARE | {"use_udp": use_udp, "decode_keypoint_order": list(range(40)), "sigma": 2}
    theirs, mine = pair("AssociativeEmbedding", config)
    keypoints, visible = people(4, (512, 512))
    assert_same(mine.encode(keypoints, visible), theirs.encode(keypoints, visible), 1e-5)


@pytest.mark.parametrize("config", ({}, {"sigma": (4, 2), "generate_keypoint_heatmaps": True}, {"sigma": 8}))
@pytest.mark.parametrize("root_type", ("kpt_center", "bbox_center"))
def test_displacements(config, root_type):
    theirs, mine = pair("SPR", SQUARE | config | {"root_type": root_type})
    random = np.random.default_rng(7)
    keypoints, visible = people(6, (512, 512))
    steps = np.array([[60, 0], [0, 60], [60, 60], [-60, 0], [0, -60]])[:, None]  # near enough to overlap at sigma 8
    keypoints[1:] = keypoints[:1].mean(1, keepdims=True) + steps + random.normal(0, 40, (5, 40, 2))
    expected = theirs.encode(keypoints, visible)
    assert_same(mine.encode(keypoints, visible), expected, 1e-4)
    maps = [torch.from_numpy(expected[k]) for k in ("heatmaps", "displacements")]
    coords, (scores, joint_scores) = mine.decode(*maps)
    wanted, (wanted_scores, wanted_joint_scores) = theirs.decode(*maps)
    torch.testing.assert_close(scores, wanted_scores)
    order = coords.mean(1)[:, 0].argsort(), wanted.mean(1)[:, 0].argsort()
    torch.testing.assert_close(coords[order[0]], wanted[order[1]], rtol=0, atol=1e-3)
    if wanted_joint_scores is not None:
        torch.testing.assert_close(joint_scores[order[0]], wanted_joint_scores[order[1]], rtol=0, atol=1e-4)


@pytest.mark.parametrize("boxes", (False, True))
def test_decoupled_maps(boxes):
    theirs, mine = pair("DecoupledHeatmap", SQUARE)
    keypoints, visible = people(4, (512, 512), beyond=0.0)
    low, high = keypoints.min(1), keypoints.max(1)
    bbox = np.stack((low, np.stack((low[:, 0], high[:, 1]), 1), np.stack((high[:, 0], low[:, 1]), 1), high), 1)
    bbox = bbox if boxes else None
    encoded = []
    for codec in (theirs, mine):
        np.random.seed(0)
        encoded.append(codec.encode(keypoints, visible, bbox=bbox))
    assert_same(encoded[1], encoded[0], 1e-4)
    maps = encoded[0]["instance_heatmaps"].reshape(-1, 40, 128, 128)
    scores = np.random.default_rng(0).random((len(maps), 1))
    for actual, expected in zip(mine.decode(maps, scores), theirs.decode(maps, scores), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


def test_ed_pose():
    theirs, mine = pair("EDPoseLabel", {"num_select": 7, "num_keypoints": 5})
    random = np.random.default_rng(0)
    boxes = np.sort(random.random((3, 2, 2)), 1).reshape(3, 4) * 300
    shape, keypoints, area = (640, 480), random.random((3, 5, 2)) * 300, random.random(3) * 900
    assert_same(
        mine.encode(shape, keypoints, area=area, bboxes=boxes),
        theirs.encode(shape, keypoints, area=area, bboxes=boxes),
        1e-5,
    )
    args = np.array([480, 640]), random.random((20, 2)), random.random((20, 4)), random.random((20, 15))
    for actual, expected in zip(mine.decode(*args), theirs.decode(*args), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_yolox_pose():
    theirs, mine = pair("YOLOXPoseAnnotationProcessor", {"expand_bbox": True})
    keypoints, visible = people(3)
    boxes = np.tile(np.array([50.0, 60, 100, 120]), (3, 1))
    expected = theirs.encode(keypoints.astype(np.float64), visible, boxes.copy(), [1, 2, 3])
    assert_same(mine.encode(keypoints, visible, boxes, [1, 2, 3]), expected, 1e-4)


def test_the_registry_builds_ours_by_name_and_after_replacing():
    config = {"type": "MSRAHeatmap", **GRID, "sigma": 2}
    assert type(KEYPOINT_CODECS.build(config | {"type": "pypose_ops.MSRAHeatmap"})) is ours.MSRAHeatmap
    assert type(KEYPOINT_CODECS.build(config)) is peer.MSRAHeatmap
    with ours.replace():
        assert type(KEYPOINT_CODECS.build(config)) is ours.MSRAHeatmap
        assert isinstance(KEYPOINT_CODECS.build(config), peer.base.BaseKeypointCodec)
    assert type(KEYPOINT_CODECS.build(config)) is peer.MSRAHeatmap
