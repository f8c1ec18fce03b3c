"""mrf_message_passing: one round of messages between joints' maps."""

from typing import Any

from . import _graph as g

_SMALLEST_MESSAGE = 1e-30


def _usable(values):
    return g.where(g.is_finite(values) & (values >= 0.0), values, 0.0)


def mrf_message_passing(
    unary: Any, prior: Any, bias: Any, edges: Any, prior_index: Any, num_targets: Any, floor: Any
) -> Any:
    op = "mrf_message_passing"
    maps = g.floating(op, "unary", unary)
    batch, _, height, width = g.sizes_of(g.Value(unary, None))
    num_targets = g.static(op, "num_targets", num_targets)
    kernel = [g.static(op, "the size of prior", n if isinstance(n, int) else prior) for n in prior.shape[1:]]
    sources, targets = edges[::2], edges[1::2]
    zeros = g.expand(g.constant(0.0, "f"), [batch, 1, height, width])
    if not sources:
        return g.expand(zeros, [batch, num_targets, height, width]).value
    flat_bias = len(bias.shape) == 1
    prior, bias = _usable(g.floating(op, "prior", prior)), _usable(g.floating(op, "bias", bias))
    if prior_index:
        prior = g.gather(prior, prior_index, 0)
    maps = g.where(g.is_finite(maps) & (maps > floor), maps, float(floor))
    # ONNX's Conv is a cross-correlation: with the kernel flipped, it is the convolution.
    for axis in (1, 2):
        prior = g.slices(prior, -1, -(2**62), axis, -1)
    pads = [n // 2 for n in kernel]
    messages = g.op(
        "Conv",
        g.gather(maps, sources, 1),
        g.unsqueeze(prior, 1),
        group=len(sources),
        kernel_shape=kernel,
        pads=pads * 2,
    )
    bias = g.unsqueeze(bias, -1, -2) if flat_bias else bias
    logs = g.log(g.maximum(messages + bias, _SMALLEST_MESSAGE))
    out = []
    for target in range(num_targets):
        members = [e for e, end in enumerate(targets) if end == target]
        out.append(g.reduce("Sum", g.gather(logs, members, 1), [1], keepdims=True) if members else zeros)
    return g.concat(out, 1).value
