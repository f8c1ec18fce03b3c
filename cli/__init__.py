"""The program ``pypose-ops COMMAND``: one module per command, with ``add_arguments(parser)`` and ``run(args)``."""
