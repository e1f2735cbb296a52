"""Naming the machine to compile for."""

from __future__ import annotations

import pytest

from egc.codegen.target import ARCHITECTURES, native, parse_arch
from egc.errors import UsageError


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_known_names(name: str) -> None:
    assert parse_arch(name).arch == name


def test_lanes_follow_from_the_width_of_registers() -> None:
    assert [parse_arch(name).lanes(32) for name in ("x86-64-v3", "x86-64-v4", "aarch64")] == [8, 16, 4]


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        parse_arch("x86-64-v5")
    assert str(caught.value) == (
        "unknown architecture 'x86-64-v5'\n"
        "  why: code can be generated for x86-64-v3, x86-64-v4, aarch64, native\n"
        "  try: --arch x86-64-v4"
    )


def test_the_machine_itself_is_named_with_all_its_features() -> None:
    assert native().features
