"""The systems, one module each, and their base classes."""
