"""Building blocks of the systems."""
