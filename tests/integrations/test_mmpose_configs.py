"""MMPose's configs with our codecs in them: dataset, pipeline, loss, prediction and metric as with MMPose's own.

Every config runs where PYPOSE_OPS_ALL_CONFIGS is set (``make test-integrations``), otherwise three.
"""

import copy
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

mmpose = pytest.importorskip("mmpose", exc_type=ImportError)
pytest.importorskip("mmcv", exc_type=ImportError)
pytest.importorskip("xtcocotools", exc_type=ImportError)

from mmengine.config import Config, ConfigDict  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from mmengine.utils import import_modules_from_strings  # noqa: E402

CONFIGS = Path(mmpose.__file__).parent / ".mim" / "configs"
HEATMAPS, COCO = "body_2d_keypoint/topdown_heatmap/coco/td-hm_", "8xb64-210e_coco-256x192"
TESTED = {
    "msra": f"{HEATMAPS}res50_{COCO}",
    "dark": f"{HEATMAPS}res50_dark-{COCO}",
    "udp": f"{HEATMAPS}hrnet-w32_udp-{COCO}",
    "udp, combined": f"{HEATMAPS}hrnet-w32_udp-regress-{COCO}",
    "megvii": f"{HEATMAPS}mspn50_8xb32-210e_coco-256x192",
    "regression": f"body_2d_keypoint/topdown_regression/coco/td-reg_res50_{COCO}",
    "rle": f"body_2d_keypoint/topdown_regression/coco/td-reg_res50_rle-{COCO}",
    "ipr": "body_2d_keypoint/integral_regression/coco/ipr_res50_8xb64-210e_coco-256x256",
    "debiased": "body_2d_keypoint/integral_regression/coco/ipr_res50_debias-8xb64-210e_coco-256x256",
    "dsnt": "body_2d_keypoint/integral_regression/coco/ipr_res50_dsnt-8xb64-210e_coco-256x256",
    "simcc": f"body_2d_keypoint/simcc/coco/simcc_res50_{COCO}",
    "rtmpose": "body_2d_keypoint/rtmpose/coco/rtmpose-t_8xb256-420e_coco-256x192",
    "rtmw": "wholebody_2d_keypoint/rtmpose/cocktail14/rtmw-m_8xb1024-270e_cocktail14-256x192",
}
NAMES = list(TESTED) if os.environ.get("PYPOSE_OPS_ALL_CONFIGS") else ["udp", "rle", "rtmpose"]
WIDTH, HEIGHT = 240, 200
PARTS = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A COCO file of three images of noise with four people, bodies and whole bodies."""
    import cv2

    folder, rng = tmp_path_factory.mktemp("coco"), np.random.default_rng(0)
    file = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for image in range(1, 4):
        file["images"].append({"id": image, "file_name": f"{image}.png", "width": WIDTH, "height": HEIGHT})
        cv2.imwrite(str(folder / f"{image}.png"), rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
        for _ in range(2 if image == 1 else 1):
            x, y, w, h = rng.integers((10, 10, 70, 90), (60, 60, 120, 130)).tolist()
            person = {"id": len(file["annotations"]) + 1, "image_id": image, "category_id": 1, "iscrowd": 0}
            person |= {"bbox": [x, y, w, h], "area": w * h * 0.6, "num_keypoints": 17, "segmentation": []}
            for part, joints in PARTS.items():
                points = np.column_stack((rng.random((joints, 2)) * (w, h) + (x, y), rng.integers(1, 3, joints)))
                person[part] = points.ravel().tolist()
                if part.endswith("_kpts"):
                    person[part.replace("kpts", "valid")], person[part.replace("kpts", "box")] = True, [x, y, w, h]
            file["annotations"].append(person)
    (folder / "people.json").write_text(json.dumps(file))
    return folder


def ours(config):
    """The config with ``pypose_ops.NAME`` for every codec, as a user writes it."""
    from pypose_ops.integrations.mmpose import CLASSES

    def walk(value):
        if isinstance(value, dict):
            value = type(value)({k: walk(v) for k, v in value.items()})
            if value.get("type") in CLASSES:
                value["type"] = f"pypose_ops.{value['type']}"
        elif isinstance(value, (list, tuple)):
            value = type(value)(walk(v) for v in value)
        return value

    return walk(copy.deepcopy(config))


def read(name):
    """A config's model, narrowed, and its pipelines, without the transforms of packages that are not installed."""
    config = Config.fromfile(CONFIGS / f"{TESTED[name]}.py", import_custom_modules=False)
    model = config.model
    model.pop("init_cfg", None)
    if model.backbone.type == "CSPNeXt":
        model.backbone.update(deepen_factor=0.167, widen_factor=0.125, init_cfg=None)
        model.head.in_channels = 128
        if "neck" in model:
            model.neck.update(in_channels=[32, 64, 128], num_csp_blocks=1, norm_cfg={"type": "BN"})
    elif model.backbone.type == "MSPN":
        model.backbone.update(unit_channels=16, num_blocks=[1, 1, 1, 1], init_cfg=None)
        model.head.update(unit_channels=16)
    else:
        coarse = model.backbone.type == "ResNet"
        model.backbone = ConfigDict(
            type="ResNet", depth=18, stem_channels=8, base_channels=8, out_indices=(3,) if coarse else (0,)
        )
        model.head.in_channels = 64 if coarse else 8
        if coarse and model.head.type in ("HeatmapHead", "DSNTHead", "IntegralRegressionHead", "SimCCHead"):
            model.head.deconv_out_channels = (16, 16, 16)
    train = config.get("train_pipeline") or config.train_dataloader.dataset.pipeline
    left_out = ("mmdet.", "Albumentation")
    if "JSDiscretLoss" in str(model):  # its gradient is NaN where a joint is cropped off and its weight is 0
        left_out += ("RandomHalfBody", "RandomBBoxTransform")
    train = [step for step in train if not step.type.startswith(left_out)]
    whole = name == "rtmw"
    return ConfigDict(
        model=model,
        train=train,
        val=config.get("val_pipeline") or config.val_dataloader.dataset.pipeline,
        dataset={"type": "CocoWholeBodyDataset" if whole else "CocoDataset", "data_mode": "topdown"},
        metric={"type": "CocoWholeBodyMetric"} if whole else dict(config.val_evaluator),
    )


def run(config, data, state=None):
    """Targets, losses, gradient, predictions and scores of one run of a config."""
    from mmpose.registry import DATASETS, METRICS, MODELS

    def samples(pipeline, **options):
        random.seed(0), np.random.seed(0)
        dataset = DATASETS.build(
            dict(config.dataset, ann_file=str(data / "people.json"), data_prefix={"img": str(data)}, pipeline=pipeline)
            | options
        )
        return dataset, [dataset[i] for i in range(len(dataset))]

    def batch(items, training):
        return model.data_preprocessor(
            {"inputs": [item["inputs"] for item in items], "data_samples": [item["data_samples"] for item in items]},
            training,
        )

    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    if state is not None:
        model.load_state_dict(state)
    state = copy.deepcopy(model.state_dict())

    _, train = samples(config.train)
    targets = {}
    for number, item in enumerate(train):
        for kind in ("gt_fields", "gt_instance_labels"):
            for key, value in item["data_samples"].get(kind, {}).items():
                targets[number, key] = value
    packed = batch(train, True)
    torch.manual_seed(1)
    losses = model.loss(packed["inputs"], packed["data_samples"])
    total, logged = model.parse_losses(losses)
    total.backward()
    torch.optim.SGD(model.parameters(), 1e-3).step()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    dataset, val = samples(config.val, test_mode=True)
    model.eval()
    if model.head.__class__.__name__ == "HeatmapHead":  # noise around 0 has any logarithm
        torch.nn.init.normal_(model.head.final_layer.weight, std=0.02, generator=torch.Generator().manual_seed(2))
        torch.nn.init.ones_(model.head.final_layer.bias)
    packed = batch(val, False)
    with torch.no_grad():
        predicted = model.predict(packed["inputs"], packed["data_samples"])
    poses = [copy.deepcopy(sample.pred_instances) for sample in predicted]
    metric = METRICS.build(dict(config.metric, ann_file=str(data / "people.json")))
    metric.dataset_meta = dataset.metainfo
    # Noise finds nobody: the ground truth, as decoded by the codec, is what has an average precision.
    encoded = decoded_truth(model.head.decoder, packed["data_samples"], dataset.metainfo)
    metric.process({}, [sample.to_dict() for sample in encoded])
    return state, targets, logged, gradient, poses, encoded, metric.evaluate(len(val))


def decoded_truth(codec, data_samples, meta):
    """The samples with keypoints that went through ``encode`` and ``decode`` of the codec."""
    for sample in data_samples:
        center, scale, size = (np.array(sample.metainfo[f"input_{k}"]) for k in ("center", "scale", "size"))
        truth = sample.gt_instances.keypoints
        inside = ((truth - center + scale / 2) / scale * size).astype(np.float32)
        visible = np.ones(inside.shape[:2], np.float32)
        encoded = codec.encode(inside, visible)
        vectors = [encoded[k] for k in encoded if k.startswith(("keypoint_x", "keypoint_y"))]
        maps = [encoded[k] for k in ("keypoint_labels", "heatmaps") if k in encoded]
        keypoints, scores = codec.decode(*(vectors or maps[:1]))
        sample.pred_instances.keypoints = keypoints / size * scale + center - scale / 2
        sample.pred_instances.keypoint_scores = np.array(scores[0] if isinstance(scores, tuple) else scores)
        sample.pred_instances.bbox_scores = sample.gt_instances.bbox_scores
    return data_samples


@pytest.mark.parametrize("name", NAMES)
def test_configs(name, data):
    MMLogger.get_current_instance().setLevel("ERROR")  # it keeps the stream of the first test
    import_modules_from_strings(["mmpose.models", "mmpose.datasets", "mmpose.evaluation"])
    import_modules_from_strings(["pypose_ops.integrations.mmpose"])
    with DefaultScope.overwrite_default_scope("mmpose"):
        config = read(name)
        if name == "rtmw":
            config.model.head.decoder.decode_visibility = True
        state, *expected = run(config, data)
        mine = ours(config)
        assert "pypose_ops." in str(mine.model) and "pypose_ops." in str(mine.train)
        _, *actual = run(mine, data, state)

    targets, logged, gradient, poses, encoded, scores = actual
    assert targets.keys() == expected[0].keys() and len(targets) >= 8
    for key, target in expected[0].items():
        for t, e in zip(*(v if isinstance(v, list) else [v] for v in (targets[key], target)), strict=True):
            assert t.shape == e.shape and t.dtype == e.dtype, key
            torch.testing.assert_close(
                t, e, rtol=0, atol=1e-5 * (255 if name == "megvii" else 1), msg=lambda m, key=key: f"{key}: {m}"
            )
    for key, value in expected[1].items():
        torch.testing.assert_close(logged[key], value, rtol=1e-4, atol=1e-6)
    assert gradient.isfinite().float().mean() > 0.9
    torch.testing.assert_close(
        gradient, expected[2], rtol=1e-3, atol=1e-4 * expected[2].nan_to_num().abs().max().item(), equal_nan=True
    )
    for pose, theirs in zip(poses, expected[3], strict=True):
        np.testing.assert_allclose(pose.keypoints, theirs.keypoints, rtol=5e-3, atol=2e-2)
        np.testing.assert_allclose(pose.keypoint_scores, theirs.keypoint_scores, rtol=1e-3, atol=1e-5)
        assert ("keypoints_visible" in pose) == ("keypoints_visible" in theirs)
        np.testing.assert_allclose(pose.keypoints_visible, theirs.keypoints_visible, rtol=1e-3, atol=1e-5)
    for sample, theirs in zip(encoded, expected[4], strict=True):
        np.testing.assert_allclose(sample.pred_instances.keypoints, theirs.pred_instances.keypoints, rtol=0, atol=5e-3)
    assert scores == pytest.approx(expected[5], abs=1e-6)
    assert max(scores.values()) > 0.9
