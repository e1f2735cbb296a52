"""What every test shares: the `--bless` switch, a reproducible hypothesis profile, and where garbage ends."""

import gc
from collections.abc import Generator

import hypothesis
import pytest

# A test that passes once passes always: examples come from a fixed seed, and no test asserts a time.
hypothesis.settings.register_profile("egc", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.load_profile("egc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bless", action="store_true", help="rewrite the expected output of golden tests")


@pytest.fixture
def bless(request: pytest.FixtureRequest) -> bool:
    """True where golden tests are to rewrite their expected output instead of comparing with it."""
    return bool(request.config.getoption("--bless"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Collect what a module's fixtures leave behind, here: an e-graph may be dropped only by the thread that
    made it, and pytest's own cycles would hand it to any thread that the next module starts.
    """
    result = yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
    return result
