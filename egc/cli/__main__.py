"""``python -m egc.cli``: the same as the command ``egc``."""

import sys

from egc.cli import main

sys.exit(main())
