"""Depthwise convolution whose gradient is as fast as the rest of a step on a CPU.

oneDNN, as torch 2.13 has it, falls back to its reference kernels for some gradients of a depthwise convolution in
bfloat16: with respect to the input at stride 2, and with respect to 5 x 5 weights. They take most of the time of a step
of a MobileNet or EfficientNet. Here the first runs in float32, which has a fast kernel, and the second as four 3 x 3
gradients. On CPUs for which oneDNN has no bfloat16 at all (without AVX-512) torch convolves channel after channel, tens
of times slower than in float32; there all of it runs in float32. And in float32 without AVX-512 the gradient with
respect to 5 x 5 weights on maps of a few pixels takes four to ten times as long as its products and sums in torch.
Once torch's own is as fast, ``F.conv2d`` alone does the same.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_LAST = torch.channels_last


def _gradient(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int, wanted: list[bool]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], x.shape[1], wanted
    )


def _weight_gradient(grad: torch.Tensor, x: torch.Tensor, size: int, stride: int, padding: int) -> torch.Tensor:
    """``(C, 1, size, size)``."""
    channels = x.shape[1]
    if size != 5:
        weight = x.new_empty(channels, 1, size, size)
        return _gradient(grad, x, weight, stride, padding, [False, True, False])[1]
    # Taps 0 to 4 are those of two windows of three, which share the middle one.
    height, width = ((n - 1) * stride for n in grad.shape[-2:])
    below, right = (max(0, n + 5 - have - padding) for n, have in zip((height, width), x.shape[-2:], strict=True))
    padded = F.pad(x, (padding, right, padding, below))
    out, weight = x.new_empty(channels, 1, 5, 5), x.new_empty(channels, 1, 3, 3)
    for top in (0, 2):
        for left in (0, 2):
            window = padded[:, :, top : top + height + 3, left : left + width + 3].contiguous(memory_format=_LAST)
            part = _gradient(grad, window, weight, stride, 0, [False, True, False])[1]
            out[:, :, top : top + 3, left : left + 3] = part
    return out


def _sums_over_taps(grad: torch.Tensor, x: torch.Tensor, size: int, stride: int, padding: int) -> torch.Tensor:
    """The same, for small maps: a product and a sum for each of the ``size * size`` taps, some of the batch at once."""
    height, width = ((n - 1) * stride + 1 for n in grad.shape[-2:])
    total = None
    for g, part in zip(grad.split(16), x.split(16), strict=True):
        right, below = (max(0, n + size - 1 - padding - m) for n, m in ((width, x.shape[-1]), (height, x.shape[-2])))
        padded = F.pad(part, (padding, right, padding, below)).permute(0, 2, 3, 1)
        g = g.permute(0, 2, 3, 1)
        windows = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]
        sums = torch.stack([(window * g).sum((0, 1, 2)) for window in windows], 1)
        total = sums if total is None else total + sums
    return total.view(-1, 1, size, size)


class _SmallMaps(torch.autograd.Function):
    """Every derivative that ``F.conv2d`` has."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int, padding: int
    ) -> torch.Tensor:
        return F.conv2d(x, weight, bias, stride, padding, 1, weight.shape[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        ctx.shape = output.shape

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _gradient(grad, x, weight, ctx.stride, ctx.padding, [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            of_weight = _sums_over_taps(grad, x, weight.shape[-1], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> torch.Tensor:
        (x, weight), (of_x, of_weight, of_bias, *_) = ctx.saved_tensors, tangents
        terms = []
        if of_x is not None:
            terms.append(F.conv2d(of_x, weight, None, ctx.stride, ctx.padding, 1, weight.shape[0]))
        if of_weight is not None:
            terms.append(F.conv2d(x, of_weight, None, ctx.stride, ctx.padding, 1, weight.shape[0]))
        if of_bias is not None:
            terms.append(of_bias[:, None, None].expand(ctx.shape))
        return torch.stack(terms).sum(0)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int, padding: int
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, 1, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        grad = grad.contiguous(memory_format=_LAST)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0] and stride == 1:
            of_x = _gradient(grad, x, weight, stride, padding, [True, False, False])[0]
        elif ctx.needs_input_grad[0]:
            shape = torch.empty(x.shape, memory_format=_LAST)  # of the input, whose values do not matter
            of_x = _gradient(grad.float(), shape, weight.float(), stride, padding, [True, False, False])[0].to(x.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(grad, x, weight.shape[-1], stride, padding)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3), dtype=torch.float32).to(grad.dtype)
        return of_x, of_weight, of_bias, None, None


def has_bfloat16_kernels() -> bool:
    """Whether oneDNN has kernels for bfloat16 on this CPU; without them it is far slower than float32."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False


def _is_slow(x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> bool:
    """Whether torch's gradient of float32 weights is slower than :func:`_sums_over_taps`."""
    size = weight.shape[-1]
    height, width = ((n + 2 * padding - size) // stride + 1 for n in x.shape[-2:])
    return (
        size == 5
        and x.dim() == 4
        and 0 < height * width <= 16
        and weight.requires_grad
        and torch.is_grad_enabled()
        and torch.backends.cpu.get_cpu_capability() != "AVX512"
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def depthwise_conv2d(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, stride: int = 1, padding: int = 0
) -> torch.Tensor:
    """``F.conv2d(x, weight, bias, stride, padding, groups=C)``, with a gradient that is fast on a CPU.

    Args:
        x (Tensor): ``(B, C, H, W)``.
        weight (Tensor): ``(C, 1, k, k)``.
        bias (Tensor or None): ``(C,)``.
        stride (int): in both directions.
        padding (int): zeros on all sides.

    Returns:
        Tensor: ``(B, C, h, w)``; of bfloat16 under autocast to it. Differentiable once on a CPU in bfloat16.
    """
    autocast = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else x.dtype
    if x.device.type == "cpu" and dtype == torch.float32 and _is_slow(x, weight, stride, padding):
        return _SmallMaps.apply(x, weight, bias, stride, padding)
    if x.device.type != "cpu" or dtype != torch.bfloat16 or x.dim() != 4 or torch.compiler.is_compiling():
        return F.conv2d(x, weight, bias, stride, padding, 1, weight.shape[0])
    bias = bias if bias is None else bias.to(dtype)
    with torch.autocast("cpu", enabled=False):
        if not has_bfloat16_kernels():
            bias = bias if bias is None else bias.float()
            return F.conv2d(x.float(), weight.to(dtype).float(), bias, stride, padding, 1, weight.shape[0]).to(dtype)
        return _Depthwise.apply(x.to(dtype), weight.to(dtype), bias, stride, padding)


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's ``"SAME"``: ``ceil(size / stride)`` pixels, the odd zero after the last.

    torch pads as much on both sides: with stride 2 and even sizes that is another grid, shifted by an input pixel.

    Args:
        inputs, outputs (int): channels.
        kernel_size (int): of the square kernel.
        stride (int): in both directions.
        depthwise (bool): one kernel per channel, :func:`depthwise_conv2d`.
        bias (bool): with one.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__(inputs, outputs, kernel_size, stride, groups=inputs if depthwise else 1, bias=bias)
        self.depthwise = depthwise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, stride = self.kernel_size[0], self.stride[0]
        total = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[-2:]]
        padding = 0
        if total[0] == total[1] and total[0] % 2 == 0:
            padding = total[0] // 2
        elif self.depthwise and size == 3 and total == [1, 1] and not torch.is_grad_enabled():
            # A zero before the kernel in place of one after the image, which would be copied: half the time.
            weight = F.pad(self.weight, (1, 0, 1, 0))
            return depthwise_conv2d(x, weight, self.bias, stride, 1)
        else:
            top, left = (n // 2 for n in total)
            x = F.pad(x, (left, total[1] - left, top, total[0] - top))
        if self.depthwise:
            return depthwise_conv2d(x, self.weight, self.bias, stride, padding)
        return F.conv2d(x, self.weight, self.bias, stride, padding)
