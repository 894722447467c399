"""`python -m corolla`: the same as the command `corolla`."""

import sys

from corolla.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
