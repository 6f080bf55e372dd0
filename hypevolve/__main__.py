"""``python -m hypevolve``: the command line."""

import sys

from hypevolve.cli import main

if __name__ == "__main__":
    sys.exit(main())
