"""What every test shares: the `--bless` switch and a reproducible hypothesis profile."""

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
