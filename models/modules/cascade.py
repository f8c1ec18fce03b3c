"""The structure that the multi-stage systems share."""

from typing import Any

from torch import nn


class Cascade(nn.Module):
    """Stages that refine an estimate.

    The first stage turns the features into a state, each later one refines it with the same features::

        states[0] = first(features(x));  states[s] = refine[s - 1](states[s - 1], features(x))

    All states are returned, so that every stage can be supervised.

    Args:
        features (nn.Module): input -> features; ``nn.Identity()`` for stages that read the image itself.
        first (nn.Module): features -> state.
        refine (nn.Module): state, features -> state.
    """

    features: nn.Module
    first: nn.Module
    refine: nn.ModuleList

    def __init__(self, features: nn.Module, first: nn.Module, *refine: nn.Module) -> None:
        super().__init__()
        self.features, self.first, self.refine = features, first, nn.ModuleList(refine)

    def forward(self, *inputs: int) -> list[Any]:
        """The states, one per stage."""
        features = self.features(*inputs)
        states = [self.first(features)]
        for stage in self.refine:
            states.append(stage(states[-1], features))
        return states
