"""``python -m egc``: the same as the command ``egc``."""

from egc.cli import run

run()
