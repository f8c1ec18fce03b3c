"""The program ``pypose-ops COMMAND``: a module for each command, with ``add_arguments(parser)`` and ``run(args)``."""
