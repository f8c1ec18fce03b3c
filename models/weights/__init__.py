"""Weight files of this package and of others."""
