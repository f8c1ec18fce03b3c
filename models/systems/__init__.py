"""The systems, one module each, and what they share."""
