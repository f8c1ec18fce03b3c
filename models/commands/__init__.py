"""The commands of ``python -m pypose_ops.models``, one module each, as those of :mod:`pypose_ops.commands`."""
