"""docs/options.md says what the parsers say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_of_options_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "scripts" / "write_options.py"))["page"]
    assert (ROOT / "docs" / "options.md").read_text() == page(), (
        "python scripts/write_options.py > docs/options.md"
    )
