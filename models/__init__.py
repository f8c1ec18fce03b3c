"""Classic pose systems as thin modules over the operators."""

from .spatial_model import SpatialModel

__all__ = ["SpatialModel"]
