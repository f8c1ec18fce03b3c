"""Every operator that can be drawn; importing this registers them."""

from . import grouping_calls, patch_calls, peak_calls, target_calls, tree_calls  # noqa: F401
from .calls import OPERATORS, public_operators


def missing():
    """Public operators without calls: a new operator is not done before it is drawn here."""
    return sorted(set(public_operators()) - OPERATORS.keys())
