"""Depthwise convolutions and TensorFlow's padding, against torch."""

import pytest
import torch
from torch.nn import functional as F

from pypose_ops.models.modules import depthwise
from pypose_ops.models.modules.depthwise import SameConv2d, depthwise_conv2d

SHAPES = [(3, 1, 12), (3, 2, 12), (3, 2, 11), (5, 1, 12), (5, 2, 12), (5, 2, 9), (5, 1, 5), (7, 1, 9)]


def case(size, pixels, dtype=torch.float32, channels=6):
    x = torch.randn(2, channels, pixels, pixels + 2, dtype=dtype).to(memory_format=torch.channels_last)
    weight, bias = torch.randn(channels, 1, size, size, dtype=dtype), torch.randn(channels, dtype=dtype)
    return [t.requires_grad_() for t in (x, weight, bias)]


@pytest.mark.parametrize(("size", "stride", "pixels"), SHAPES)
@pytest.mark.parametrize("padded", [True, False])
def test_gradients_are_torch_s(size, stride, pixels, padded):
    """The function itself in float32, in which torch's own is exact."""
    tensors, padding = case(size, pixels), size // 2 if padded else 0
    out = depthwise._Depthwise.apply(*tensors, stride, padding)
    expected = F.conv2d(*tensors, stride, padding, 1, 6)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    for found, wanted in zip(
        torch.autograd.grad(out, tensors, grad), torch.autograd.grad(expected, tensors, grad), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "stride", "pixels"), SHAPES[:6])
@pytest.mark.parametrize("kernels", [True, False])
def test_bfloat16_is_near_float32(monkeypatch, size, stride, pixels, kernels):
    """With oneDNN's kernels and without them: under autocast, and of bfloat16 tensors."""
    monkeypatch.setattr(depthwise, "has_bfloat16_kernels", lambda: kernels)
    x, weight, bias = tensors = case(size, pixels)
    expected = F.conv2d(x, weight, bias, stride, size // 2, 1, 6)
    wanted = torch.autograd.grad(expected.square().sum(), tensors)
    with torch.autocast("cpu", torch.bfloat16):
        out = depthwise_conv2d(x, weight, bias, stride, size // 2)
    assert out.dtype == torch.bfloat16
    found = torch.autograd.grad(out.float().square().sum(), tensors)
    for a, b in zip((out, *found), (expected, *wanted), strict=True):
        torch.testing.assert_close(a.float(), b, rtol=0.05, atol=0.02 * float(b.detach().abs().max()))
    assert depthwise_conv2d(*(t.bfloat16() for t in tensors), stride, size // 2).dtype == torch.bfloat16


@pytest.mark.parametrize(("stride", "pixels", "padding"), [(1, 4, 2), (1, 2, 2), (2, 7, 2), (2, 9, 0), (1, 7, 0)])
def test_small_maps_have_every_derivative(stride, pixels, padding):
    torch.manual_seed(0)
    tensors = [t.detach().requires_grad_() for t in case(5, pixels, torch.float64, channels=2)]

    def ours(*t):
        return depthwise._SmallMaps.apply(*t, stride, padding)

    def theirs(*t):
        return F.conv2d(*t, stride, padding, 1, 2)

    checks = {"fast_mode": True, "check_batched_grad": True}
    assert torch.autograd.gradcheck(ours, tensors, check_forward_ad=True, **checks)
    assert torch.autograd.gradgradcheck(ours, tensors, **checks)
    plain = tuple(t.detach() for t in tensors)
    for transform in (
        lambda f: torch.func.grad(lambda *t: f(*t).square().sum(), argnums=(0, 1, 2)),
        lambda f: torch.func.vmap(torch.func.grad(lambda x, *t: f(x[None], *t).square().sum(), 1), (0, None, None)),
        lambda f: lambda *t: torch.func.jvp(f, t, tuple(map(torch.ones_like, t))),
    ):
        torch.testing.assert_close(transform(ours)(*plain), transform(theirs)(*plain))


@pytest.mark.parametrize("batch", [1, 3, 40])
def test_small_maps_in_float32(monkeypatch, batch):
    """Whatever the processor: the gradients of torch, for batches of one and of several parts."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    x, weight, bias = torch.randn(batch, 6, 4, 3), torch.randn(6, 1, 5, 5), torch.randn(6)
    tensors = [t.requires_grad_() for t in (x, weight, bias)]
    out, expected = depthwise_conv2d(*tensors, 1, 2), F.conv2d(*tensors, 1, 2, 1, 6)
    assert (
        "SmallMaps" in out.grad_fn.name()
        and "SmallMaps" not in depthwise_conv2d(x.bfloat16(), weight, None, 1, 2).grad_fn.name()
    )
    assert torch.equal(out, expected)
    for found, wanted in zip(
        torch.autograd.grad(out.square().sum(), tensors),
        torch.autograd.grad(expected.square().sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_image_without_a_batch(dtype):
    x, weight, _ = case(5, 3)
    alone = x[0].detach().to(dtype).requires_grad_()
    found = torch.autograd.grad(depthwise.depthwise_conv2d(alone, weight.to(dtype), None, 1, 2).sum(), (alone, weight))
    wanted = torch.autograd.grad(F.conv2d(alone, weight.to(dtype), None, 1, 2, 1, len(weight)).sum(), (alone, weight))
    torch.testing.assert_close(found, wanted, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


def test_only_what_is_wanted_has_a_gradient():
    x, weight, bias = case(3, 8)
    weight.requires_grad_(False)
    depthwise._Depthwise.apply(x, weight, None, 1, 1).sum().backward()
    assert x.grad is not None and weight.grad is None and bias.grad is None


@pytest.mark.parametrize("pixels", [7, 8, 12, 13])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_same_is_tensorflow_s_padding(pixels, size, stride, depthwise, grad):
    """TensorFlow: ceil(n / stride) pixels, of the zeros the smaller half before the first."""
    conv = SameConv2d(3, 3, size, stride=stride, depthwise=depthwise)
    x = torch.randn(1, 3, pixels, pixels)
    count = -(-pixels // stride)
    total = max((count - 1) * stride + size - pixels, 0)
    padded = torch.zeros(1, 3, pixels + total, pixels + total)
    padded[..., total // 2 : total // 2 + pixels, total // 2 : total // 2 + pixels] = x
    with torch.set_grad_enabled(grad):
        out = conv(x)
    assert out.shape == (1, 3, count, count) and out.requires_grad == grad
    expected = F.conv2d(padded, conv.weight, conv.bias, stride, groups=3 if depthwise else 1)
    torch.testing.assert_close(out.detach(), expected.detach())
