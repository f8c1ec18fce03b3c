"""What the staged systems have in common."""

from typing import Any

from torch import nn


class Cascade(nn.Module):
    """Stages that refine an estimate.

    The first stage makes a state of the features, each later one a better state of the last one and the same features::

        states[0] = first(features(x));  states[s] = refine[s - 1](states[s - 1], features(x))

    A state is heatmaps ``(B, K, H, W)``, a pose ``(B, K, 2)``, or a tuple of what a stage hands on. Every stage's state
    is returned, so that every stage can be trained against the truth.

    Args:
        features (nn.Module): of the input; ``nn.Identity()`` where stages look at the picture itself.
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
