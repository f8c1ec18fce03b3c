"""What a call of the fuzzer is, and the list of the operators it knows."""

from dataclasses import dataclass, field

import torch

import pypose_ops
from pypose_ops import reference


@dataclass
class Call:
    """One call of a public operator.

    Attributes:
        name: of the operator.
        arguments: by name; tensors on the CPU.
        grad: names of the arguments to differentiate by.
        dtype: of the arithmetic's input, which sets the tolerance.
        perturbed: names of the arguments that carry rounding errors, and how large these are beside the values'
            own: coordinates are rounded on the scale of the map that they are compared with.
        lost: absolute error that the documentation allows the results.
        conditioned: ``conditioned(call, arguments)``: what the rounding of the steps between costs output 0, in its
            shape. Asked only where the contract's tolerance is exceeded, with the arguments in float64.
        valid: whether the documentation allows it; otherwise it may be refused, by name.
    """

    name: str
    arguments: dict
    grad: tuple = ()
    dtype: torch.dtype = torch.float32
    perturbed: dict = field(default_factory=dict)
    lost: float = 0.0
    conditioned: object = None
    valid: bool = True
    broken: str = ""

    @property
    def op(self):
        return getattr(pypose_ops, self.name)

    @property
    def reference(self):
        return getattr(reference, self.name)


@dataclass(frozen=True)
class Operator:
    """How calls of one operator are drawn and compared.

    Attributes:
        draw: ``draw(Draw) -> Call``.
        whole: dimensions of the outputs that are judged as one: 0 compares element by element, 2 a (B, K, ...) result
            per map, because a joint's coordinates belong together. ``"item"``: all outputs of a batch item.
    """

    name: str
    draw: object
    whole: int = 0


OPERATORS = {}


def operator(name, whole=0):
    """Registers a function that draws calls of a public operator."""

    def register(draw):
        assert name not in OPERATORS, f"{name} is drawn twice"
        OPERATORS[name] = Operator(name, draw, whole)
        return draw

    return register


def public_operators():
    """Every operator that the package exports: those that the reference defines."""
    return sorted(reference.__all__)
