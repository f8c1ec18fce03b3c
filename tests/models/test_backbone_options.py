"""The classic systems with other backbones than their papers', and with ImageNet weights in them."""

import pytest
import torch
from checkpoint_keys import filled, resnet_keys
from system_contract import check_poses, some_people
from test_efficientnet_lite import lite0_keys

from pypose_ops.errors import InputError
from pypose_ops.models import build
from pypose_ops.models.modules.backbones import IMAGENET_PIXELS, PIXELS, backbone, pixels_of
from pypose_ops.models.modules.efficientnet_lite import EfficientNetLite
from pypose_ops.models.modules.mobilenet_v2 import MobileNetV2

SMALL = {
    "cpm": {"stages": 2, "stage_width": 8, "hidden": 8, "input_size": (64, 96)},
    "cnn_mrf": {"pyramid": (8, 8, 8), "features": 8, "hidden": 8, "input_size": (64, 96)},
    "stacked_hourglass": {"width": 8, "depth": 3, "pyramid": (8, 8, 8), "input_size": (64, 96)},
    "part_heatmap_regression": {"regressor_width": 0.1, "levels": 2, "input_size": (64, 96)},
    "deeppose": {"input_size": (64, 96), "patch_size": (64, 64), "stages": 2, "crops": 2},
    "dual_source": {"input_size": (64, 96), "windows": 4, "grid": (3, 3), "hidden": (8, 8)},
}
OPTION = {
    "cpm": "variant",
    "cnn_mrf": "detector",
    "stacked_hourglass": "backbone",
    "part_heatmap_regression": "detector",
    "deeppose": "backbone",
    "dual_source": "backbone",
}
STAGES = {name: 1 if name == "dual_source" else 2 for name in SMALL}


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    path = tmp_path_factory.mktemp("lite") / "lite0.pth"
    torch.save(filled(lite0_keys()), path)
    return path


@pytest.mark.parametrize("name", SMALL)
def test_imagenet_weights_begin_every_backbone(name, lite0):
    system = build(name, 14, "efficientnet_lite0", pretrained=lite0, **SMALL[name])
    assert system.training and (system.mean, system.std) == PIXELS["efficientnet_lite"]
    backbones = [m for m in system.modules() if isinstance(m, EfficientNetLite)]
    assert len(backbones) == (2 if name in ("deeppose", "dual_source") else 1)
    tensors = torch.load(lite0)
    for module in backbones:
        stem = module.stem.conv.weight
        assert torch.equal(stem[:, :3], tensors["_conv_stem.weight"]) and not stem[:, 3:].any()
        assert torch.equal(module.blocks[15].project.conv.weight, tensors["_blocks.15._project_conv.weight"])


def test_a_fourth_channel_starts_without_effect(tmp_path):
    tensors = filled(resnet_keys(18))
    torch.save(tensors, tmp_path / "resnet18.pth")
    options = {"backbone": "resnet18", "width": 1.0, "part_size": (32, 32), "body_size": (32, 32)}
    system = build("dual_source", 14, "compact", pretrained=tmp_path / "resnet18.pth", **options)
    first = system.nets["body"].features.conv1.weight
    assert first.shape[1] == 4 and torch.equal(first[:, :3], tensors["conv1.weight"]) and not first[:, 3].any()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "efficientnet_lite0") for name in SMALL),
        ("cpm", "mobilenet_v2"),
        ("cnn_mrf", "vgg16"),
        ("stacked_hourglass", "resnet18"),
        ("part_heatmap_regression", "vgg16"),
        ("deeppose", "mobilenet_v2"),
        ("dual_source", "mobilenet_v2"),
    ],
)
def test_a_backbone_trains_and_finds_joints(name, kind):
    narrow = {"width": 0.1} if name in ("part_heatmap_regression", "deeppose", "dual_source") else {}
    narrow = {} if kind == "efficientnet_lite0" else narrow
    system = build(name, 14, "efficientnet_lite0", **SMALL[name] | narrow | {OPTION[name]: kind})
    assert (system.mean, system.std) == pixels_of(kind)
    batch = some_people(system)
    phase = system.phases[0]
    system.begin_phase(phase, [batch])
    sum(system.losses(batch, phase).values()).backward()
    first = next(p for n, p in system.named_parameters() if p.requires_grad and p.dim() == 4)
    assert first.grad.isfinite().all() and first.grad.any()  # a gradient reaches the first convolution
    check_poses(system, batch, STAGES[name])


def test_names_and_pixels():
    assert isinstance(backbone("mobilenet_v2", width=0.35), MobileNetV2)
    assert isinstance(backbone("efficientnet_lite3", width=1.0), EfficientNetLite)
    assert pixels_of("resnet50") == pixels_of("alexnet") == IMAGENET_PIXELS
    for name, options in (("efficientnet_lite0", {"width": 0.5}), ("efficientnet_lite", {}), ("mobilenet_v3", {})):
        with pytest.raises(ValueError):
            backbone(name, **options)


def test_backbones_that_are_none(tmp_path):
    for name in ("cpm", "cnn_mrf", "stacked_hourglass", "part_heatmap_regression"):
        option = OPTION[name]
        with pytest.raises(ValueError, match=f"{option} must be .* or a backbone, got 'alexnet'"):
            build(name, 14, **{option: "alexnet"})
    with pytest.raises(ValueError, match=r"widths must be 3 numbers, got \(8, 8\)"):
        build("stacked_hourglass", 14, "efficientnet_lite0", pyramid=(8, 8))
    with pytest.raises(InputError, match="no such file"):
        build("cpm", 14, "efficientnet_lite0", pretrained=tmp_path / "none.pth")
