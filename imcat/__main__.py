"""``python -m imcat`` is the command ``imcat``."""

import sys

from imcat.cli import main

if __name__ == "__main__":
    sys.exit(main())
