"""Backbones: shapes, torchvision's names and parameter counts, output strides."""

import pytest
import torch

from pypose_ops.models.modules import backbones


def count(module):
    return sum(p.numel() for p in module.parameters())


# Of torchvision's nets without their classifiers.
@pytest.mark.parametrize(
    "name, parameters",
    [
        ("resnet18", 11_176_512),
        ("resnet34", 21_284_672),
        ("resnet50", 23_508_032),
        ("resnet101", 42_500_160),
        ("resnet152", 58_143_808),
        ("vgg16", 14_714_688),
        ("vgg19", 20_024_384),
        ("alexnet", 3_747_200),
    ],
)
def test_parameter_counts(name, parameters):
    with torch.device("meta"):
        assert count(backbones.backbone(name)) == parameters


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "alexnet"])
def test_narrow_nets_have_a_fraction_of_the_parameters(name):
    with torch.device("meta"):
        narrow, full = (count(backbones.backbone(name, width=w)) for w in (0.25, 1.0))
    assert full / 17 < narrow < full / 14


@pytest.mark.parametrize("size, expected", [(220, 6), (227, 6)])
def test_alexnet_maps(size, expected):
    net = backbones.AlexNet(width=0.1)
    assert net(torch.rand(1, 3, size, size)).shape == (1, 26, expected, expected)
    sizes = [m.shape[-1] for m in _walk(net.features, torch.rand(1, 3, size, size))]
    if size == 220:  # the table of the paper
        assert sizes[0] == 55 and sizes[3] == 27 and sizes[7] == 13


def _walk(layers, x):
    for layer in layers:
        x = layer(x)
        yield x


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("dilate", [False, True])
def test_resnet_output_stride(depth, stride, dilate):
    net = backbones.ResNet(depth, width=0.1, output_stride=stride, dilate=dilate).eval()
    maps = net.stages(torch.rand(1, 3, 64, 96))
    assert [64 // m.shape[-2] for m in maps] == [4, 8, min(16, stride), stride]
    assert [m.shape[1] for m in maps] == net.channels and net.stride == stride
    assert maps[-1].shape[-1] == 96 // stride


@pytest.mark.parametrize("depth", [18, 50])
def test_a_dilated_resnet_samples_the_strided_one(depth):
    # The same weights see the same pixels, more densely.
    torch.manual_seed(0)
    strided = backbones.ResNet(depth, width=0.25).double().eval()
    dilated = backbones.ResNet(depth, width=0.25, output_stride=8).double().eval()
    dilated.load_state_dict(strided.state_dict())
    x = torch.rand(1, 3, 128, 128, dtype=torch.float64)
    torch.testing.assert_close(dilated(x)[..., ::4, ::4], strided(x))


def test_resnet_names_are_torchvisions():
    with torch.device("meta"):
        keys = set(backbones.ResNet(50).state_dict())
    expected = {"conv1.weight", "bn1.running_var", "layer1.0.conv3.weight", "layer1.0.downsample.0.weight"}
    expected |= {"layer4.2.bn3.num_batches_tracked", "layer3.5.conv2.weight", "layer2.0.downsample.1.bias"}
    assert expected <= keys and len(keys) == 318
    with torch.device("meta"):
        assert backbones.ResNet(50).layer4[0].conv2.stride == (2, 2)


def test_vgg_layers():
    with torch.device("meta"):
        net = backbones.VGG(19, last="conv4_2")
        assert set(net.state_dict()) == {
            f"features.{n}.{k}" for n in (0, 2, 5, 7, 10, 12, 14, 16, 19, 21) for k in ("weight", "bias")
        }
    assert net.stride == 8 and net.out_channels == 512 and isinstance(net.features[-1], torch.nn.ReLU)
    net = backbones.VGG(16, width=0.1, norm=True)
    maps = net.stages(torch.rand(2, 3, 64, 64), ("pool3", "pool4", "pool5"))
    assert [tuple(m.shape[1:]) for m in maps] == [(26, 8, 8), (51, 4, 4), (51, 2, 2)]


def test_a_broken_name_is_refused():
    for build in (
        lambda: backbones.backbone("resnet51"),
        lambda: backbones.backbone("mobilenet"),
        lambda: backbones.VGG(16, last="conv6_1"),
        lambda: backbones.ResNet(50, output_stride=4),
    ):
        with pytest.raises(ValueError):
            build()


def test_output_shape():
    net = backbones.ResNet(18, width=0.1)
    assert backbones.output_shape(net, (64, 96)) == (48, 2, 3)
    assert net.training and net.bn1.num_batches_tracked == 0
    with torch.device("meta"):
        assert backbones.output_shape(backbones.AlexNet(), (220, 220)) == (256, 6, 6)
