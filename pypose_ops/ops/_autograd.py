"""How the wrappers call the operators: derivatives, ``torch.func`` and errors.

What an operator does to take part, here for an imaginary ``blur`` with a backward operator ``_blur_backward``::

    register_derivative("blur", _setup_context, _backward)    # reverse mode: backward(), torch.func.grad, jacrev
    register_derivative("_blur_backward")                     # double backward is refused, in the name of blur
    vmap_by_batch("blur", 0)                             # vmap: argument 0 has the batch first
    vmap_by_batch("_blur_backward", 0, 1)

    @forward_mode("blur")                                # jvp, jacfwd: the reference, with the operator's arguments
    def _(maps, sigma):
        return reference.blur(maps, sigma)

    call(_ops.blur.default, (maps,), maps, sigma)        # in the wrapper, and call(...) in the backward function too

An operator without a derivative only needs ``call(op, (), *args)``, which names its errors.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch.autograd import forward_ad

from .. import _build

_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled
# Neither has a public counterpart: torch.no_grad() does not skip the Python layer, and forward_ad.unpack_dual takes a
# microsecond per tensor to say that nothing is differentiated.
_below_autograd = torch._C._AutoDispatchBelowAutograd
# Transforms of torch.func, and modes that see every operation, such as make_fx: they have no public names either.
_transforming = torch._C._functorch.peek_interpreter_stack
_modes = torch._C._len_torch_dispatch_stack

_library = torch.library.Library("pypose_ops", "IMPL")
_derivatives: dict[str, tuple[Callable[..., None], Callable[..., Any]]] = {}
_forward_rules: dict[str, Callable[..., Any]] = {}


def register_fake(op: str) -> Callable[[Callable], Callable]:
    """``torch.library.register_fake``, called from here.

    torch notes the file of the caller, and looks through all modules for each new file: half of what importing the
    operators would take.
    """

    def register(function: Callable) -> Callable:
        torch.library.register_fake(op, function)
        return function

    return register


def call(op: torch._ops.OpOverload, differentiable: Sequence[Any], *args: Any) -> Any:
    """``op(*args)``, with errors as the wrappers document them.

    Args:
        op: the operator.
        differentiable: the tensors among the arguments (lists of them unpacked, None allowed) that have a derivative.
            If none asks for a gradient, autograd's Python layer is skipped: it costs as much as a small kernel.
        args: the operator's arguments.

    Raises:
        TypeError: an argument has the wrong Python type.
        ValueError: the operator refuses an argument.
        torch.OutOfMemoryError: the outputs do not fit into memory.
    """
    if _is_compiling():
        return op(*args)
    try:
        if _is_grad_enabled():
            for tensor in differentiable:
                if getattr(tensor, "requires_grad", False):
                    if forward_ad._current_level >= 0:
                        return _forward(op, args)
                    return _differentiate(op, args)
        if forward_ad._current_level >= 0 and any(_has_tangent(tensor) for tensor in differentiable):
            return _forward(op, args)
        with _below_autograd():
            return op(*args)
    except (RuntimeError, MemoryError) as error:
        _raise_named(op, args, error)


def is_differentiated(*tensors: Any) -> bool:
    """Whether a call on them has a backward pass, for which it then keeps what took memory to compute."""
    return _is_grad_enabled() and any(getattr(tensor, "requires_grad", False) for tensor in tensors)


def is_plain(*tensors: Any) -> bool:
    """Whether an operator of the host without a derivative can take these tensors, or None, in place of steps in torch.

    On the CPU, outside of compilers, modes that see every operation and transforms, where nothing is differentiated.
    """
    if _is_compiling() or torch.jit.is_tracing() or forward_ad._current_level >= 0:
        return False
    if _modes() > 0 or _transforming() is not None:
        return False
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) is not torch.Tensor or not tensor.is_cpu or (tensor.requires_grad and _is_grad_enabled()):
            return False
    return True


def call_backward(op: torch._ops.OpOverload, *args: Any) -> Any:
    """``op(*args)`` for a backward operator: all of its tensors would have a derivative."""
    return call(op, _flatten(args)[1], *args)


def register_derivative(
    name: str, setup_context: Callable[..., None] | None = None, backward: Callable[..., Any] | None = None
) -> None:
    """Registers the derivative of ``pypose_ops::name``; without one, differentiating it is refused by name.

    The arguments are those of :func:`torch.library.register_autograd`. That function alone knows neither
    ``torch.func`` nor forward mode, so the eager wrappers go through an ``autograd.Function`` with the same rules.
    """
    setup = setup_context or _no_context
    derivative = backward or _refusal(f"{_public(name)}: double backward")
    kernel = functools.cache(lambda: _autograd_kernel(name, setup, derivative))
    _library.impl(name, lambda keyset, *args: kernel()(keyset, *args), "Autograd", with_keyset=True)
    _derivatives[f"pypose_ops::{name}"] = setup, derivative


def _autograd_kernel(name: str, setup: Callable[..., None], derivative: Callable[..., Any]) -> Callable[..., Any]:
    """What :func:`torch.library.register_autograd` would register.

    It makes a class for each operator, half of what importing all of them would take, and only a compiled graph or a
    caller of ``torch.ops`` needs it: so it is asked at the first call.
    """

    class Caught(torch.library.Library):
        def impl(self, op_name: Any, fn: Callable[..., Any], *args: Any, **options: Any) -> None:
            self.kernel = fn

    library = Caught("pypose_ops", "FRAGMENT")
    torch.library.register_autograd(f"pypose_ops::{name}", derivative, setup_context=setup, lib=library)
    return library.kernel


@functools.cache
def _function(name: str) -> type[torch.autograd.Function]:
    """The ``autograd.Function`` of an operator with a derivative."""
    own = name.partition("::")[2]
    public, op = _public(own), getattr(torch.ops.pypose_ops, own).default
    setup, derivative = _derivatives[name]

    class Function(torch.autograd.Function):
        """The operator on a layout and its arguments in a row: see :func:`_flatten`."""

        generate_vmap_rule = True
        jvp = staticmethod(_refusal(f"{public}: forward-mode differentiation of a derivative"))

        @staticmethod
        def forward(layout: Any, *row: Any) -> Any:
            with _below_autograd():
                output = op(*_unflatten(layout, row))
            return tuple(output) if isinstance(output, list) else output

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.layout = inputs[0]
            setup(ctx, _unflatten(inputs[0], inputs[1:]), output)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
            found = derivative(_Context(ctx), *grads)
            found = found if isinstance(found, tuple) else (found,)
            row = [g for n, g in zip(ctx.layout, found, strict=True) for g in ([g] if n is None else g or [None] * n)]
            return None, *row

    Function.__name__ = Function.__qualname__ = f"{own}_function"
    return Function


def forward_mode(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a function of the operator's arguments that is differentiable in forward mode: the reference.

    While a tensor with a tangent is among the arguments the operator is this function, in plain torch, so that
    everything torch knows of forward mode holds.
    """

    def register(rule: Callable[..., Any]) -> Callable[..., Any]:
        _forward_rules[f"pypose_ops::{name}"] = rule
        return rule

    return register


def vmap_by_batch(name: str, *batched: int) -> None:
    """Registers the rule of ``torch.func.vmap`` for ``pypose_ops::name``.

    Args:
        name: the operator, whose outputs all have the batch first.
        batched: positions of the arguments that have the batch first too: the mapped axis is folded into it. Where
            another argument is mapped, or none is named, the operator is called once per entry.
    """
    op = getattr(torch.ops.pypose_ops, name).default

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size
        if size == 0:
            raise Unsupported(f"{_public(name)}: mapping over an axis of size 0 is not supported")
        if {i for i, dim in enumerate(in_dims) if _is_mapped(dim)} <= set(batched):
            row = [
                _fold(arg, dim, size) if i in batched and isinstance(arg, torch.Tensor) else arg
                for i, (arg, dim) in enumerate(zip(args, in_dims, strict=True))
            ]
            output = _map_tensors(lambda t: t.unflatten(0, (size, -1)), op(*row))
        else:
            pairs = list(zip(args, in_dims, strict=True))
            output = _stack([op(*(_entry(arg, dim, i) for arg, dim in pairs)) for i in range(size)])
        return output, _map_tensors(lambda _: 0, output)

    torch.library.register_vmap(f"pypose_ops::{name}", rule)


_OTHER_NAMES = {
    "_decode_offsets": "decode_heatmaps",
    "_box_centers": "box_to_center_and_scale",
    "_box_transforms": "box_to_transform",
}


def _public(name: str) -> str:
    """The public operator that an operator of the library belongs to."""
    name = name.removesuffix(".out")
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    return re.sub(r"^_|(_images|_transforms)?_backward$|_kept$", "", name)


class Unsupported(RuntimeError):
    """An error that no argument caused: a class of its own, to tell it from the errors of the checks."""


def _no_context(ctx: Any, inputs: Any, output: Any) -> None:
    pass


def _refusal(what: str) -> Callable[..., NoReturn]:
    def refuse(ctx: Any, *grads: Any) -> NoReturn:
        raise Unsupported(f"{what} is not supported")

    return refuse


class _Context:
    """An autograd context whose ``needs_input_grad`` is that of the operator's own arguments."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    @property
    def needs_input_grad(self) -> tuple[Any, ...]:
        return _unflatten(self._ctx.layout, self._ctx.needs_input_grad[1:])


def _flatten(args: Sequence[Any]) -> tuple[tuple[int | None, ...], list[Any]]:
    """The arguments in a row, without lists of tensors, whose entries autograd.Function would not see."""
    layout, row = [], []
    for arg in args:
        is_list = isinstance(arg, list) and len(arg) > 0 and isinstance(arg[0], torch.Tensor)
        layout.append(len(arg) if is_list else None)
        row += arg if is_list else [arg]
    return tuple(layout), row


def _unflatten(layout: Sequence[int | None], row: Sequence[Any]) -> tuple[Any, ...]:
    entries = iter(row)
    return tuple(next(entries) if n is None else [next(entries) for _ in range(n)] for n in layout)


def _differentiate(op: torch._ops.OpOverload, args: Sequence[Any]) -> Any:
    layout, row = _flatten(args)
    return _function(op.name()).apply(layout, *row)


def _has_tangent(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and forward_ad.unpack_dual(tensor).tangent is not None


def _forward(op: torch._ops.OpOverload, args: Sequence[Any]) -> Any:
    rule = _forward_rules.get(op.name())
    if rule is None:
        raise Unsupported(f"{_public(op.name().partition('::')[2])}: forward-mode differentiation is not supported")
    return rule(*args)


def _is_mapped(dim: Any) -> bool:
    return any(map(_is_mapped, dim)) if isinstance(dim, list | tuple) else dim is not None


def _fold(tensor: torch.Tensor, dim: int | None, size: int) -> torch.Tensor:
    tensor = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return tensor.flatten(0, 1)


def _entry(arg: Any, dim: Any, i: int) -> Any:
    if isinstance(dim, list | tuple):
        return [_entry(a, d, i) for a, d in zip(arg, dim, strict=True)]
    return arg if dim is None else arg.select(dim, i)


def _map_tensors(function: Callable[[Any], Any], output: Any) -> Any:
    if isinstance(output, list | tuple):
        return type(output)(function(tensor) for tensor in output)
    return function(output)


def _stack(entries: list[Any]) -> Any:
    if isinstance(entries[0], list | tuple):
        return type(entries[0])(torch.stack(tensors) for tensors in zip(*entries, strict=True))
    return torch.stack(entries)


_KINDS = {"float": "a number", "int": "an integer", "bool": "True or False", "Tensor": "a tensor"}
_WRONG_TYPE = re.compile(
    r"pypose_ops::\w+\(\) Expected a value of type '(Optional\[)?(.+?)\]?' for argument '(\w+)' "
    r"but instead found type '(.+?)'"
)
# The library allocates through functions of libtorch's stable ABI, which say no more than that they failed.
_ALLOCATION = re.compile(
    r"(empty|new_zeros|contiguous|aten::to\b).* API call failed|can't allocate memory|"
    r"Storage size calculation overflowed",
    re.DOTALL,
)


def _raise_named(op: torch._ops.OpOverload, args: Sequence[Any], error: RuntimeError | MemoryError) -> NoReturn:
    """Raises what an error of the library means to the caller of a wrapper."""
    name, message = _public(op.name().partition("::")[2]), str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _ALLOCATION.search(message):
        raise torch.OutOfMemoryError(f"{name}: out of memory{_outputs(op, args)}") from error
    if type(error) is not RuntimeError:
        raise error
    if ": the launch of a CUDA kernel " in message:  # by csrc/common/cuda.cuh; no argument is at fault
        if "no kernel image" in message:
            gpu = next((a.device for a in _flatten(args)[1] if isinstance(a, torch.Tensor) and a.is_cuda), None)
            message = _build.why_no_kernel(torch.cuda.get_device_capability(gpu))
        raise RuntimeError(f"pypose_ops: {message}") from None
    wrong = _WRONG_TYPE.match(message)
    if wrong:
        wanted = _KINDS.get(wrong[2], wrong[2]) + (" or None" if wrong[1] else "")
        raise TypeError(f"{name}: {wrong[3]} must be {wanted}, got {wrong[4]}") from None
    if re.match(r"(?!pypose_ops:)\w+: ", message):  # prefixed with pypose_ops: is an error that no argument caused
        raise ValueError(message) from None
    raise error


def _outputs(op: torch._ops.OpOverload, args: Sequence[Any]) -> str:
    """What a call's outputs need, as its fake kernel says."""

    def meta(arg: Any) -> Any:
        return arg.detach().to("meta") if isinstance(arg, torch.Tensor) else arg

    try:
        result = op(*([meta(a) for a in arg] if isinstance(arg, list) else meta(arg) for arg in args))
    except Exception as error:  # the call has failed already; this only improves the message
        return " for outputs of more than 2^63 bytes" if "overflow" in str(error) else ""
    outputs = result if isinstance(result, list | tuple) else (result,)
    shapes = ", ".join(f"{tuple(t.shape)} ({t.numel() * t.element_size()} bytes)" for t in outputs)
    copied = [a for a in args if isinstance(a, torch.Tensor) and not a.is_contiguous()]
    copies = ", ".join(f"{tuple(t.shape)} ({t.numel() * t.element_size()} bytes)" for t in copied)
    return f" for outputs of shape {shapes}" + (f", and contiguous copies of shape {copies}" if copies else "")


def _empty_gradient(keypoints: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """A gradient as the kernels return it, for fake kernels: float32, or float64 for maps of float64."""
    dtype = torch.float64 if grad.dtype == torch.float64 else torch.float32
    return keypoints.new_empty(keypoints.shape, dtype=dtype)
