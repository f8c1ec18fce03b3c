"""The program ``pypose-ops``, as a module of the package."""

import sys

from pypose_ops_program import COMMANDS, main

__all__ = ["COMMANDS", "main"]

if __name__ == "__main__":
    sys.exit(main())
