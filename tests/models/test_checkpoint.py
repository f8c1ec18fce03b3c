"""Weights of torchvision and MMPose: key names, layouts, what the nets compute from them, refusals."""

import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from checkpoint_keys import cpm_keys, filled, hourglass_keys, number, resnet_keys, vgg_keys
from safetensors.torch import save_file
from torch.nn import functional as F

from pypose_ops import decode_heatmaps, skeletons
from pypose_ops.errors import InputError
from pypose_ops.models import Batch, build, load_checkpoint
from pypose_ops.models.modules.backbones import VGG, ResNet
from pypose_ops.models.weights import mmpose
from pypose_ops.models.weights.files import save_weights
from pypose_ops.models.weights.mmpose import MMPoseCPM, MMPoseDeepPose, MMPoseHourglass


@pytest.mark.parametrize(("joints", "parameters"), [(16, 31_225_568), (14, 31_068_372), (17, 31_304_166)])
def test_cpm_layout(joints, parameters):
    keys = cpm_keys(joints)
    assert len(keys) == 216 and number(keys) == parameters
    with torch.device("meta"):
        assert layout(MMPoseCPM(joints)) == keys


@pytest.mark.parametrize("stacks", [1, 2])
def test_hourglass_layout(stacks):
    keys = hourglass_keys(16, stacks)
    if stacks == 1:
        assert number(keys) == 94_847_632  # 94.84 M in the backbone
    with torch.device("meta"):
        assert layout(MMPoseHourglass(16, stacks=stacks)) == keys


def test_deeppose_layout():
    keys = resnet_keys(50, "backbone.") | {"head.fc.weight": (32, 2048), "head.fc.bias": (32,)}
    assert number(resnet_keys(50)) == 23_508_032
    with torch.device("meta"):
        assert layout(MMPoseDeepPose(16)) == keys


def layout(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def as_version_0(tensors):
    """What MMPose 0.x wrote: other names of the head."""
    return {re.sub("^head", "keypoint_head", name): tensor for name, tensor in tensors.items()}


def as_version_1(tensors):
    return tensors | {"data_preprocessor.mean": torch.zeros(3, 1, 1), "data_preprocessor.std": torch.ones(3, 1, 1)}


def meta(tensors):
    return {"meta": {"epoch": 210, "dataset_meta": {"sigmas": np.full(16, 0.05)}}, "state_dict": tensors}


def conv(x, w, name, size, norm=True, relu=True, prefix="backbone."):
    name = prefix + name
    x = F.conv2d(x, w[f"{name}.conv.weight"], w.get(f"{name}.conv.bias"), padding=size // 2)
    if norm:
        parts = [w[f"{name}.bn.{end}"] for end in ("running_mean", "running_var", "weight", "bias")]
        x = F.batch_norm(x, *parts, eps=1e-5)
    return F.relu(x) if relu else x


def cpm_by_hand(w, images, stages):
    """MMPose's CPM written down once more."""

    def trunk(part):
        x = images
        for n in (0, 2, 4):
            x = F.max_pool2d(conv(x, w, f"{part}.{n}", 9), 3, 2, padding=1)
        return x

    x = conv(conv(conv(trunk("stem"), w, "stem.6", 5), w, "stem.7", 9), w, "stem.8", 1)
    out, shared = [conv(x, w, "stem.9", 1, norm=False, relu=False)], trunk("middle")
    for s in range(stages - 1):
        x = torch.cat((out[-1], conv(shared, w, f"middle_conv.{s}.0", 5)), 1)
        for n in range(3):
            x = conv(x, w, f"cpm_stages.{s}.model.{n}", 11)
        x = conv(x, w, f"out_convs.{s}.0", 1)
        out.append(conv(x, w, f"out_convs.{s}.1", 1, norm=False, relu=False))
    return out


@pytest.mark.parametrize("version", [0, 1])
def test_cpm_from_a_file(tmp_path, version):
    tensors = filled(cpm_keys(16, stages=3))
    content = {"state_dict": as_version_0(tensors)} if version == 0 else meta(as_version_1(tensors))
    torch.save(content, tmp_path / "cpm.pth", _use_new_zipfile_serialization=version == 1)
    system = load_checkpoint(tmp_path / "cpm.pth")
    assert isinstance(system, MMPoseCPM) and not system.training and system.input_size == (368, 368)
    images = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        for got, wanted in zip(system(images), cpm_by_hand(tensors, images, 3), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def block(x, w, name, stride):
    out = F.conv2d(x, w[f"{name}.conv1.weight"], stride=stride, padding=1)
    out = F.relu(normed(out, w, f"{name}.bn1"))
    out = normed(F.conv2d(out, w[f"{name}.conv2.weight"], padding=1), w, f"{name}.bn2")
    if f"{name}.downsample.0.weight" in w:
        x = normed(F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride), w, f"{name}.downsample.1")
    return F.relu(out + x)


def normed(x, w, name):
    return F.batch_norm(x, *(w[f"{name}.{end}"] for end in ("running_mean", "running_var", "weight", "bias")))


def hourglass_by_hand(w, images, stacks):
    """MMPose's HourglassNet written down once more."""

    def layer(x, name, count, stride=1):
        for n in range(count):
            x = block(x, w, f"{name}.{n}", stride if n == 0 else 1)
        return x

    def module(x, name, depth):
        low = layer(x, f"{name}.low1", 2, stride=2)
        low = module(low, f"{name}.low2", depth - 1) if depth > 1 else layer(low, f"{name}.low2", 4)
        return layer(x, f"{name}.up1", 2) + F.interpolate(layer(low, f"{name}.low3", 2), scale_factor=2, mode="nearest")

    x = F.conv2d(images, w["backbone.stem.0.conv.weight"], stride=2, padding=3)
    x = layer(F.relu(normed(x, w, "backbone.stem.0.bn")), "backbone.stem.1", 1, stride=2)
    maps = []
    for s in range(stacks):
        out = conv(module(x, f"backbone.hourglass_modules.{s}", 5), w, f"out_convs.{s}", 3)
        maps.append(F.conv2d(out, *(w[f"head.multi_final_layers.{s}.{end}"] for end in ("weight", "bias"))))
        if s + 1 < stacks:
            x = conv(x, w, f"conv1x1s.{s}", 1, relu=False) + conv(out, w, f"remap_convs.{s}", 1, relu=False)
            x = block(F.relu(x), w, f"backbone.inters.{s}", 1)
    return maps


def test_hourglass_from_a_file(tmp_path, monkeypatch):
    """With fewer channels: the published net has 190 M parameters in two stacks."""
    channels = (16, 16, 24, 24, 24, 32)
    monkeypatch.setattr(mmpose, "STAGE_CHANNELS", channels)
    tensors = filled(hourglass_keys(5, 2, channels))
    save_file(as_version_0(tensors), tmp_path / "hourglass.safetensors")
    system = load_checkpoint(tmp_path / "hourglass.safetensors", input_size=(384, 384))
    assert isinstance(system, MMPoseHourglass) and system.input_size == (384, 384)
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        for got, wanted in zip(system(images), hourglass_by_hand(tensors, images, 2), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("version", [0, 1])
def test_deeppose_from_a_file(tmp_path, version):
    tensors = filled(resnet_keys(50, "backbone.") | {"head.fc.weight": (34, 2048), "head.fc.bias": (34,)})
    torch.save({"state_dict": (as_version_0, as_version_1)[version](tensors)}, tmp_path / "deeppose.pth")
    system = load_checkpoint(tmp_path / "deeppose.pth")
    assert isinstance(system, MMPoseDeepPose) and system.input_size == (256, 192)
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        mean = system.backbone(images).mean((2, 3))
        wanted = (mean @ tensors["head.fc.weight"].T + tensors["head.fc.bias"]).reshape(2, 17, 2)
    (peaks,) = system.poses(images)
    torch.testing.assert_close(peaks.coords, wanted * torch.tensor([48.0, 64.0]), rtol=1e-4, atol=1e-3)
    (flipped,) = system.poses(images, flip_pairs=skeletons.COCO.flip_pairs)
    (mirrored,) = system.poses(images.flip(-1))
    back = mirrored.coords[:, list(skeletons.COCO.flip_index)] * torch.tensor([-1.0, 1.0]) + torch.tensor([47.0, 0.0])
    torch.testing.assert_close(flipped.coords, (peaks.coords + back) / 2)


def test_mmpose_decoding_and_flip_test():
    system = MMPoseCPM(16, stages=2).eval()
    images = torch.randn(1, 3, 64, 64)
    pairs = skeletons.MPII.flip_pairs
    with torch.no_grad():
        maps, flipped = system(images)[-1], system(images.flip(-1))[-1]
    coords, scores = decode_heatmaps(maps, refine="quarter", flipped=flipped, flip_pairs=pairs, flip_shift=True)
    got = system.poses(images, flip_pairs=pairs)[-1]
    torch.testing.assert_close(got.scores, scores)
    assert (scores > 0).any()
    torch.testing.assert_close(got.coords[scores > 0], 8 * coords[scores > 0])


def test_mmpose_systems_train():
    for system in (MMPoseCPM(14, stages=2), MMPoseDeepPose(14)):
        keypoints = torch.rand(2, 14, 2) * 63
        keypoints[0, 0] = float("nan")
        batch = Batch(torch.randn(2, 3, 64, 64), keypoints, keypoints.isfinite().all(-1))
        losses = system.losses(batch)
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in system.parameters())


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_resnet(tmp_path, depth):
    tensors = filled(resnet_keys(depth)) | {"fc.weight": torch.zeros(5, 2048), "fc.bias": torch.zeros(5)}
    old = {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}  # files of 2017 have none
    torch.save(old, tmp_path / "resnet.pth")
    net = load_checkpoint(tmp_path / "resnet.pth")
    assert isinstance(net, ResNet) and net.out_channels == (2048 if depth == 50 else 512)
    for name, tensor in net.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(tensor, tensors[name])


@pytest.mark.parametrize("norm", [False, True])
def test_torchvision_vgg(tmp_path, norm):
    tensors = filled(vgg_keys(norm))
    torch.save(tensors, tmp_path / "vgg.pth")
    net = load_checkpoint(tmp_path / "vgg.pth")
    assert isinstance(net, VGG) and layout(net) == {n: s for n, s in vgg_keys(norm).items() if n.startswith("features")}
    with torch.no_grad():
        short = load_checkpoint(tmp_path / "vgg.pth", into=VGG(16, last="conv4_2", norm=norm))
        images = torch.randn(1, 3, 32, 32)
        (wanted,) = net.stages(images, ["conv4_2"])
        torch.testing.assert_close(short(images), wanted)


def test_torchvision_backbone_into_a_system(tmp_path):
    tensors = filled(resnet_keys(18))
    torch.save(tensors, tmp_path / "resnet18.pth")
    system = build("part_heatmap_regression", 14, depth=18, regressor_width=0.1)
    assert load_checkpoint(tmp_path / "resnet18.pth", into=system) is system
    assert torch.equal(system.cascade.first.backbone.layer4[1].conv2.weight, tensors["layer4.1.conv2.weight"])
    with pytest.raises(InputError, match="expected weights of StackedHourglass, got torchvision's ResNet"):
        load_checkpoint(tmp_path / "resnet18.pth", into=build("stacked_hourglass", 14, "compact"))
    with pytest.raises(InputError, match=r"conv1.weight \(64, 3, 7, 7\) instead of \(16, 3, 7, 7\)"):
        load_checkpoint(tmp_path / "resnet18.pth", into=build("part_heatmap_regression", 14, "compact"))


def test_torchvision_vgg_begins_a_system(tmp_path):
    tensors = filled(vgg_keys(depth=19))
    torch.save(tensors, tmp_path / "vgg19.pth")
    system = build("paf_net", 14, stages=1, width=8, hidden=8)
    load_checkpoint(tmp_path / "vgg19.pth", into=system)
    assert torch.equal(system.cascade.features.vgg.features[21].weight, tensors["features.21.weight"])  # conv4_2
    text = refusal(tmp_path / "vgg19.pth", into=build("part_heatmap_regression", 14, detector="vgg", width=0.1))
    assert "do not fit torchvision's VGG" in text


def test_own_weights(tmp_path):
    system = build("stacked_hourglass", 14, "compact")
    torch.save({"state_dict": system.state_dict()}, tmp_path / "own.pth")
    other = build("stacked_hourglass", 14, "compact")
    load_checkpoint(tmp_path / "own.pth", into=other)
    assert all(
        torch.equal(a, b) for a, b in zip(system.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_what_training_wrote(tmp_path):
    system = build("stacked_hourglass", 14, "compact", stacks=1)
    info = {"system": "stacked_hourglass", "preset": "compact", "skeleton": "lsp", "options": {"stacks": 1}}
    save_weights(tmp_path / "own.safetensors", system, info)
    other = load_checkpoint(tmp_path / "own.safetensors")
    assert type(other) is type(system) and layout(other) == layout(system)


def test_backbone_of_another_system(tmp_path):
    net = build("heatmap_net", 14, "efficientnet_lite0")
    for tensor in (t for t in net.state_dict().values() if t.is_floating_point()):
        torch.nn.init.uniform_(tensor, 0.5, 1.0)
    info = {"system": "heatmap_net", "preset": "efficientnet_lite0", "skeleton": "lsp", "options": {}}
    path = tmp_path / "net.safetensors"
    save_weights(path, net, info)
    system = build("cpm", 14, "efficientnet_lite0")
    head = system.cascade.first.head.state_dict()
    head = {name: tensor.clone() for name, tensor in head.items()}
    assert load_checkpoint(path, into=system) is system
    for name, tensor in system.cascade.features.backbone.state_dict().items():
        assert torch.equal(tensor, net.backbone.state_dict()[name]), name
    assert all(torch.equal(tensor, head[name]) for name, tensor in system.cascade.first.head.state_dict().items())
    poses = load_checkpoint(path, into=build("deeppose", 14, "efficientnet_lite0", stages=2))
    for stage in (poses.cascade.first, poses.cascade.refine[0]):
        assert torch.equal(stage.net.features.stem.conv.weight, net.backbone.stem.conv.weight)
    text = refusal(path, into=build("stacked_hourglass", 14, "compact"))
    assert text.endswith("expected weights with a backbone of StackedHourglass, got heatmap_net")
    text = refusal(path, into=build("cpm", 14, "efficientnet_lite0", variant="efficientnet_lite3"))
    assert "do not fit EfficientNetLite" in text


def test_the_same_system_with_other_options_is_refused(tmp_path):
    """Not half of it loaded."""
    info = {"system": "deeppose", "preset": "efficientnet_lite0", "skeleton": "lsp", "options": {"stages": 1}}
    save_weights(tmp_path / "one.safetensors", build("deeppose", 14, "efficientnet_lite0", stages=1), info)
    two = build("deeppose", 14, "efficientnet_lite0", stages=2)
    assert "missing: cascade.refine.0" in refusal(tmp_path / "one.safetensors", into=two)
    assert "missing: cascade.refine.0" in refusal(tmp_path / "one.safetensors", into=torch.nn.DataParallel(two))


def refusal(path, **options):
    with pytest.raises(InputError) as error:
        load_checkpoint(path, **options)
    text = str(error.value)
    assert "\n" not in text and str(path) in text and len(text) < 1500
    return text


def test_refusal_lists_missing_and_unexpected(tmp_path):
    tensors = filled(cpm_keys(16, stages=2))
    del tensors["backbone.stem.7.bn.bias"]
    tensors["backbone.extra.weight"] = torch.zeros(3)
    tensors["backbone.stem.8.conv.weight"] = torch.zeros(512, 512, 3, 3)
    torch.save(tensors, tmp_path / "odd.pth")
    text = refusal(tmp_path / "odd.pth")
    assert "1 missing: backbone.stem.7.bn.bias" in text and "1 unexpected: backbone.extra.weight" in text
    assert "backbone.stem.8.conv.weight (512, 512, 3, 3) instead of (512, 512, 1, 1)" in text


def test_refusal_of_another_system(tmp_path):
    torch.save(filled(cpm_keys(16, stages=2)), tmp_path / "cpm.pth")
    text = refusal(tmp_path / "cpm.pth", into=build("stacked_hourglass", 16, "compact"))
    assert text.endswith("expected weights of StackedHourglass, got those of MMPose's CPM")
    torch.save(build("cpm", 14, "compact").state_dict(), tmp_path / "own.pth")
    text = refusal(tmp_path / "own.pth", into=build("stacked_hourglass", 14, "compact"))
    assert "do not fit StackedHourglass" in text and "missing" in text and "more" in text
    assert "expected a checkpoint of MMPose's CPM, HourglassNet or DeepPose" in refusal(tmp_path / "own.pth")


class Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_not_run(tmp_path, legacy):
    bad = {"state_dict": filled(cpm_keys(16, stages=2)), "meta": Code(str(tmp_path / "ran"))}
    torch.save(bad, tmp_path / "bad.pth", _use_new_zipfile_serialization=not legacy)
    assert "mkdir" in refusal(tmp_path / "bad.pth")
    (tmp_path / "worse.pth").write_bytes(pickle.dumps(Code(str(tmp_path / "ran"))))
    refusal(tmp_path / "worse.pth")
    assert not (tmp_path / "ran").exists()


def test_files_that_are_not_checkpoints(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.pth")
    for name in ("text.pth", "text.safetensors", "empty.pth"):
        (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"not tensors at all" * 40)
        assert "expected" in refusal(tmp_path / name)
    torch.save(filled(cpm_keys(14, stages=2)), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-2000])
    assert "damaged" in refusal(tmp_path / "cut.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    assert "expected a dictionary of tensors" in refusal(tmp_path / "list.pth")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "vgg.pth")
    assert "no VGG has 1 convolutions" in refusal(tmp_path / "vgg.pth")


def resnet_forms(state):
    """The same weights as frameworks wrap them."""
    average = {f"ema_{name.replace('.', '_')}": tensor + 1 for name, tensor in state.items()}
    return {
        "DataParallel": {"state_dict": prefixed(state, "module.")},
        "torch.compile": {"state_dict": prefixed(state, "_orig_mod.")},
        "both": prefixed(state, "module._orig_mod."),
        "Lightning": {"state_dict": prefixed(state, "model."), "epoch": 3, "pytorch-lightning_version": "2.6.0"},
        "a module of one's own": {"state_dict": prefixed(state, "net.")},
        "with a preprocessor": {"state_dict": prefixed(state, "module.") | {"data_preprocessor.mean": torch.zeros(3)}},
        "EMAHook": {"state_dict": state | average},
        "MMEngine's average": {"state_dict": state, "ema_state_dict": {"steps": torch.tensor(3)}},
        "optimizer": {"state_dict": state, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}},
    }


def prefixed(tensors, prefix):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def test_wrappers_of_frameworks(tmp_path):
    state = filled(resnet_keys(18))
    for name, content in resnet_forms(state).items():
        torch.save(content, tmp_path / "wrapped.pth")
        found = load_checkpoint(tmp_path / "wrapped.pth").state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in found.items()), name


def test_own_checkpoints_and_wrapped_modules(tmp_path):
    make = lambda: build("stacked_hourglass", 5, "compact", stacks=1, width=16, depth=2)  # noqa: E731
    state = make().state_dict()
    torch.save({"state_dict": prefixed(state, "system."), "epoch": 4}, tmp_path / "best.ckpt")
    torch.save(state, tmp_path / "plain.pth")
    torch.save(prefixed(state, "module."), tmp_path / "parallel.pth")
    for name in ("best.ckpt", "plain.pth", "parallel.pth"):
        for into in (make(), torch.nn.DataParallel(make())):
            found = load_checkpoint(tmp_path / name, into=into).state_dict()
            assert all(torch.equal(a, b) for a, b in zip(found.values(), state.values(), strict=True)), name
    own = torch.nn.ModuleDict({"model": torch.nn.Linear(2, 3)})  # every name of its own begins with model.
    torch.save(own.state_dict(), tmp_path / "own.pth")
    assert load_checkpoint(tmp_path / "own.pth", into=own) is own


def test_hostile_files_take_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("pypose_ops.datasets.files.UNPACKED", 1 << 16)
    torch.save({"features.0.weight": torch.zeros(1).expand(1 << 40)}, tmp_path / "wide.pth")
    assert "features.0.weight says that it has 1,099,511,627,776 numbers" in refusal(tmp_path / "wide.pth")
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    assert "that unpack to 1,048,576, which are refused" in refusal(tmp_path / "packed.pth")
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "sparse.pth")
    assert "expected plain tensors, a says" in refusal(tmp_path / "sparse.pth")
