"""`python -m egc`: the command line."""

import sys

from egc.cli import main

if __name__ == "__main__":
    sys.exit(main())
