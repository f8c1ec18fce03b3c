"""Names and shapes of the tensors in other libraries' checkpoints, and random tensors for them."""

import torch


def bn(name, width):
    ends = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{end}": (width,) for end in ends} | {f"{name}.num_batches_tracked": ()}


def conv_module(name, outputs, inputs, size, norm=True):
    shapes = {f"{name}.conv.weight": (outputs, inputs, size, size)}
    return shapes | (bn(f"{name}.bn", outputs) if norm else {f"{name}.conv.bias": (outputs,)})


def cpm_keys(joints, stages=6):
    """The names and shapes of MMPose's CPM."""
    keys = {}
    for part in ("stem", "middle"):
        for n, inputs in ((0, 3), (2, 128), (4, 128)):
            keys |= conv_module(f"backbone.{part}.{n}", 128, inputs, 9)
    keys |= conv_module("backbone.stem.6", 32, 128, 5) | conv_module("backbone.stem.7", 512, 32, 9)
    keys |= conv_module("backbone.stem.8", 512, 512, 1) | conv_module("backbone.stem.9", joints, 512, 1, norm=False)
    for s in range(stages - 1):
        keys |= conv_module(f"backbone.middle_conv.{s}.0", 32, 128, 5)
        for n, inputs in ((0, 32 + joints), (1, 128), (2, 128)):
            keys |= conv_module(f"backbone.cpm_stages.{s}.model.{n}", 128, inputs, 11)
        keys |= conv_module(f"backbone.out_convs.{s}.0", 128, 128, 1)
        keys |= conv_module(f"backbone.out_convs.{s}.1", joints, 128, 1, norm=False)
    return keys


def basic_blocks(name, count, inputs, outputs, turn, down):
    keys = {}
    for n in range(count):
        a, b = (inputs if n <= turn else outputs), (outputs if n >= turn else inputs)
        keys |= {f"{name}.{n}.conv1.weight": (b, a, 3, 3), f"{name}.{n}.conv2.weight": (b, b, 3, 3)}
        keys |= bn(f"{name}.{n}.bn1", b) | bn(f"{name}.{n}.bn2", b)
        if n == turn and down:
            keys |= {f"{name}.{n}.downsample.0.weight": (b, a, 1, 1)} | bn(f"{name}.{n}.downsample.1", b)
    return keys


def hourglass_keys(joints, stacks=1, channels=(256, 256, 384, 384, 384, 512)):
    """The names and shapes of MMPose's HourglassNet."""
    width, counts = channels[0], (2, 2, 2, 2, 2, 4)
    keys = conv_module("backbone.stem.0", 128, 3, 7) | basic_blocks("backbone.stem.1", 1, 128, width, 0, True)
    keys |= basic_blocks("backbone.inters", max(stacks - 1, 1), width, width, 0, False)
    for s in range(stacks):
        name = f"backbone.hourglass_modules.{s}"
        for depth in range(5):
            (a, b), count = channels[depth : depth + 2], counts[depth]
            keys |= basic_blocks(f"{name}.up1", count, a, a, 0, False)
            keys |= basic_blocks(f"{name}.low1", count, a, b, 0, True)
            keys |= basic_blocks(f"{name}.low3", count, b, a, count - 1, a != b)
            name += ".low2"
        keys |= basic_blocks(name, counts[5], channels[5], channels[5], 0, False)
        keys |= conv_module(f"backbone.out_convs.{s}", width, width, 3)
        head = f"head.multi_final_layers.{s}"
        keys |= {f"{head}.weight": (joints, width, 1, 1), f"{head}.bias": (joints,)}
    for s in range(stacks - 1):
        for name in ("conv1x1s", "remap_convs"):
            keys |= conv_module(f"backbone.{name}.{s}", width, width, 1)
    return keys


def resnet_keys(depth=50, prefix=""):
    """The names and shapes of torchvision's ResNet without ``fc``."""
    keys = {f"{prefix}conv1.weight": (64, 3, 7, 7)} | bn(f"{prefix}bn1", 64)
    bottleneck, inputs = depth >= 50, 64
    for n, count in enumerate({18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]):
        wide = 64 * 2**n
        outputs = wide * 4 if bottleneck else wide
        for b in range(count):
            name = f"{prefix}layer{n + 1}.{b}"
            sizes = ((wide, inputs, 1), (wide, wide, 3), (outputs, wide, 1)) if bottleneck else ()
            for c, (o, i, k) in enumerate(sizes or ((wide, inputs, 3), (wide, wide, 3)), 1):
                keys |= {f"{name}.conv{c}.weight": (o, i, k, k)} | bn(f"{name}.bn{c}", o)
            if b == 0 and (n > 0 or bottleneck):
                keys |= {f"{name}.downsample.0.weight": (outputs, inputs, 1, 1)} | bn(f"{name}.downsample.1", outputs)
            inputs = outputs
    return keys


def vgg_keys(norm=False, depth=16):
    """The names and shapes of torchvision's VGG, classifier included."""
    keys, inputs, n, long = {}, 3, 0, 3 if depth == 16 else 4
    for count, width in ((2, 64), (2, 128), (long, 256), (long, 512), (long, 512)):
        for _ in range(count):
            keys |= {f"features.{n}.weight": (width, inputs, 3, 3), f"features.{n}.bias": (width,)}
            keys |= bn(f"features.{n + 1}", width) if norm else {}
            inputs, n = width, n + (3 if norm else 2)
        n += 1
    return keys | {"classifier.0.weight": (5, 512 * 49), "classifier.0.bias": (5,)}


def filled(keys, seed=0):
    """Random tensors in which nothing dies out."""
    g, out = torch.Generator().manual_seed(seed), {}
    for name, shape in keys.items():
        if name.endswith("num_batches_tracked"):
            out[name] = torch.tensor(7)
        elif len(shape) > 1:
            out[name] = torch.randn(shape, generator=g) * (2 / torch.Size(shape[1:]).numel()) ** 0.5
        else:
            low = 0.5 if name.endswith(("running_var", "weight")) else -0.2
            out[name] = low + torch.rand(shape, generator=g)
    return out


def number(keys):
    ends = ("running_mean", "running_var", "num_batches_tracked")
    return sum(torch.Size(shape).numel() for name, shape in keys.items() if not name.endswith(ends))
